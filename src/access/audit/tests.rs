//! The book: what is counted, what is told, what is remembered.

use super::*;
use crate::token::Secret;

fn user(name: &str) -> Arc<User> {
    User::new(name, vec![Secret::new("k")], None, None)
}

fn rows(page: &Page) -> Vec<(String, u64)> {
    let row = |entry: &Arc<Entry>| {
        let Row { what, address, via } = &entry.row;
        let address = address.map_or(OTHERS.to_owned(), |address| address.to_string());
        let what = match what {
            What::Read { client, source } => {
                format!("{client} {}", source.as_ref().map_or(OTHERS, SourceName::as_str))
            }
            other => format!("{other:?}"),
        };
        (format!("{what} {address} {}", via.as_str()), entry.count.load(Ordering::Relaxed))
    };
    let mut rows: Vec<_> = page.iter().map(row).collect();
    rows.sort();
    rows
}

#[test]
fn reads_are_counted_by_client_source_address_and_protocol() {
    let (audit, shop, app) = (Audit::default(), user("shop"), user("app"));
    let (here, there) = (IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2]));
    for _ in 0..3 {
        audit.read(&shop, "ticket", here, Via::Http);
        audit.read(&shop, "access_token", here, Via::Http);
        audit.read(&shop, "ticket", there, Via::Http);
        audit.read(&app, "ticket", here, Via::Http);
        audit.read(&app, "ticket", here, Via::Resp);
    }
    audit.no_key(here, Via::Resp);
    let found = rows(&audit.pages().current);
    let expected = [
        ("NoKey 10.0.0.1 resp", 1),
        ("app ticket 10.0.0.1 http", 3),
        ("app ticket 10.0.0.1 resp", 3),
        ("shop access_token 10.0.0.1 http", 3),
        ("shop ticket 10.0.0.1 http", 3),
        ("shop ticket 10.0.0.2 http", 3),
    ];
    assert_eq!(found, expected.map(|(row, count)| (row.to_owned(), count)));
}

#[test]
fn a_page_is_told_when_nobody_can_write_on_it_any_more() {
    let (audit, shop) = (Audit::default(), user("shop"));
    let here = IpAddr::from([10, 0, 0, 1]);
    audit.read(&shop, "ticket", here, Via::Http);
    audit.report(SystemTime::UNIX_EPOCH);
    audit.read(&shop, "ticket", here, Via::Http);
    let pages = audit.pages();
    assert_eq!(rows(&pages.previous), rows(&pages.current));
    drop(pages);
    audit.report(SystemTime::UNIX_EPOCH);
    audit.report(SystemTime::UNIX_EPOCH);
    let pages = audit.pages();
    assert!(pages.previous.is_empty() && pages.current.is_empty());
}

#[test]
fn reads_are_told_from_the_first_to_the_last() {
    let (audit, shop) = (Audit::default(), user("shop"));
    let here = IpAddr::from([10, 0, 0, 1]);
    let there = IpAddr::from([10, 0, 0, 2]);
    let minute = |n: u64| SystemTime::UNIX_EPOCH + Duration::from_secs(60 * n);
    let told = |audit: &Audit, now| {
        let reads = audit.reads(now);
        assert_eq!(reads.len(), 1);
        let (reader, reads) = reads.into_iter().next().unwrap();
        assert_eq!((&*reader.client, reader.source.unwrap().as_str()), ("shop", "ticket"));
        (reads.total, reads.recent, reads.last)
    };
    audit.read(&shop, "ticket", here, Via::Http);
    audit.read(&shop, "ticket", there, Via::Http);
    assert_eq!(told(&audit, minute(0)), (2, 2, Some(minute(0))));
    audit.report(minute(1));
    audit.read(&shop, "ticket", here, Via::Http);
    assert_eq!(told(&audit, minute(1)), (3, 3, Some(minute(1))));
    audit.report(minute(2));
    assert_eq!(told(&audit, minute(2)), (3, 1, Some(minute(2))));
    audit.report(minute(3));
    assert_eq!(told(&audit, minute(9)), (3, 0, Some(minute(2))), "to the minute");
}

#[test]
fn refusals_are_counted_by_reason_and_protocol() {
    let (audit, shop) = (Audit::default(), user("shop"));
    let here = IpAddr::from([10, 0, 0, 1]);
    audit.no_key(here, Via::Resp);
    audit.refused(&Refusal::WrongAddress(Arc::clone(&shop)), here, Via::Http);
    audit.refused_once_more(&Refusal::WrongKey, here, Via::Http);
    audit.denied(&shop, "x", here, Via::Http, "no");
    let counted = audit.refusals().filter(|(_, _, count)| *count > 0);
    let expected = [
        (Reason::NoKey, Via::Resp, 1),
        (Reason::WrongKey, Via::Http, 1),
        (Reason::WrongAddress, Via::Http, 1),
        (Reason::Denied, Via::Http, 1),
    ];
    assert_eq!(counted.collect::<Vec<_>>(), expected);
}

#[test]
fn threads_and_books_do_not_mix() {
    let (one, two, shop) = (Audit::default(), Audit::default(), user("shop"));
    let here = IpAddr::from([10, 0, 0, 1]);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..100 {
                    one.read(&shop, "ticket", here, Via::Http);
                    two.read(&shop, "ticket", here, Via::Http);
                }
            });
        }
    });
    for audit in [one, two] {
        assert_eq!(rows(&audit.pages().current), [("shop ticket 10.0.0.1 http".to_owned(), 400)]);
    }
}

#[test]
fn a_crowd_is_counted_together() {
    let (audit, shop) = (Audit::default(), user("shop"));
    for at in 0..MOST_ROWS + 10 {
        let [a, b] = u16::try_from(at).unwrap().to_be_bytes();
        audit.read(&shop, "ticket", IpAddr::from([10, 0, a, b]), Via::Http);
    }
    let pages = audit.pages();
    assert_eq!(pages.current.len(), MOST_ROWS + 1);
    assert!(rows(&pages.current).contains(&("shop ticket others http".to_owned(), 10)));
}

#[test]
fn a_page_is_bounded_whoever_reads_what_from_where() {
    let (audit, here) = (Audit::default(), IpAddr::from([10, 0, 0, 1]));
    let (clients, each) = (["shop", "app", "erp"].map(user), MOST_ROWS + MOST_READERS);
    // Twice: what is counted together is so from the first time on.
    for _ in 0..2 {
        for client in &clients {
            for at in 0..each {
                audit.read(client, &format!("s{at}"), here, Via::Http);
            }
        }
    }
    let current = audit.pages().current.len();
    assert!(current <= MOST_ROWS + MOST_READERS + clients.len(), "{current} rows");
    let crowd = rows(&audit.pages().current);
    let crowd = crowd.iter().find(|(row, _)| row == "erp others others http");
    assert_eq!(crowd.map(|(_, count)| *count), Some(u64::try_from(2 * each).unwrap()));
    let reads = audit.reads(SystemTime::UNIX_EPOCH);
    let total: u64 = reads.values().map(|reads| reads.total).sum();
    assert_eq!(total, u64::try_from(2 * clients.len() * each).unwrap(), "every read is counted");
}

#[test]
fn a_crowd_of_readers_is_remembered_together() {
    let (audit, shop) = (Audit::default(), user("shop"));
    let here = IpAddr::from([10, 0, 0, 1]);
    for at in 0..MOST_READERS + 10 {
        audit.read(&shop, &format!("s{at}"), here, Via::Http);
    }
    for _ in 0..2 {
        audit.report(SystemTime::UNIX_EPOCH);
    }
    let remembered = audit.pages().read.clone();
    for reads in [remembered, audit.reads(SystemTime::UNIX_EPOCH)] {
        assert_eq!(reads.len(), MOST_READERS + 1);
        let crowd = Reader { client: "shop".into(), source: None, via: Via::Http };
        assert_eq!(reads[&crowd].total, 10);
    }
}
