//! Silent connections, which hold no buffers.

use std::pin::pin;

use tokio_util::sync::CancellationToken;

use super::super::Limits;
use super::super::connection::{Deadline, End, QUIET, serve, service, wait_for_request};
use super::super::handlers::Site;
use super::super::places::Places;
use super::super::progress::{NotingStream, Progress};
use super::*;
use crate::log_budget::LogBudget;
use crate::tls::Stream;

#[tokio::test]
async fn what_is_silent_rests_and_goes_on_where_it_was() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut client = Client(TcpStream::connect(listener.local_addr().unwrap()).await.unwrap());
    let (stream, peer) = listener.accept().await.unwrap();
    let (parts, ..) = parts(SystemClock::shared());
    let HttpParts { reader, refresh, clock, access, tls, status, control, doctor, ready, door } =
        parts;
    let site = Site {
        reader,
        refresh,
        clock: clock.clone(),
        access,
        status,
        control,
        doctor,
        secret_parameter: true,
        ui: true,
        trusted_proxies: Vec::new(),
        body_timeout: NEVER,
        tls,
        tls_hellos: LogBudget::default(),
        ready,
        door,
        waits: Places::new(1, 1),
        streams: Places::new(1, 1),
        drain: Drain::new(),
    };
    let progress = Arc::new(Progress::default());
    let limits = Limits { header: NEVER, idle: NEVER };
    let mut deadline = Deadline::new(limits, clock, &progress);
    let service = service(Arc::new(site), peer, Arc::clone(&progress));
    let closing = CancellationToken::new();
    let mut begun = pin!(closing.cancelled());
    let mut draining = false;
    let mut stream = NotingStream::new(Stream::Plain(stream), Arc::clone(&progress));
    // Each time with a part of the next request behind a whole one.
    let request = get("/");
    let mut unsent = request.as_str();
    for cut in [1, request.len() - 1, 10] {
        client.send(&[unsent, &request[..cut]].concat()).await;
        unsent = &request[cut..];
        let serving =
            serve(stream, &service, &progress, &mut deadline, begun.as_mut(), &mut draining);
        let end = tokio::time::timeout(PATIENCE, serving).await.expect("a rest");
        let End::AtRest(rested) = end else { panic!("it ended") };
        stream = rested;
        let answer = client.answer().await;
        assert_eq!((answer.status, answer.header("connection")), (200, None));
    }
    // Half a head is waited for, however long it takes within its time.
    let mut half = Box::pin(wait_for_request(
        &mut stream,
        &progress,
        &mut deadline,
        begun.as_mut(),
        &mut draining,
    ));
    let (more, rest) = unsent.split_at(5);
    client.send(more).await;
    assert!(tokio::time::timeout(QUIET * 5, &mut half).await.is_err(), "it was given up");
    client.send(rest).await;
    assert!(tokio::time::timeout(PATIENCE, half).await.expect("a request"));
    // Nothing of it is lost at the end: the last request is answered, and then the drain closes it.
    closing.cancel();
    let serving = serve(stream, &service, &progress, &mut deadline, begun.as_mut(), &mut draining);
    let end = tokio::time::timeout(PATIENCE, serving).await.expect("an end");
    assert!(matches!(end, End::Closed(Ok(()))));
    assert_eq!(client.answer().await.status, 200);
}
