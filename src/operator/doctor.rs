//! `doctor`: what the running server finds out about itself, if one runs, what the machine shows beside that, and,
//! if none runs, what can be found out in its place. Puts it together; what is made of it is in the room `doctor`.

use std::time::Duration;

use super::connection::{Ask, Connection, names_a_server};
use super::{Desk, EX_PROTOCOL, Failure, NOT_ALL_WELL, print};
use crate::cli::DoctorArgs;
use crate::config;
use crate::doctor::{self, Asked, Finding, Look, Presence};

/// How long a server may take to look at everything: its own looks take eight seconds each, and some come one after
/// the other.
const PATIENCE: Duration = Duration::from_secs(90);

/// How long a look of somebody else's is waited for before it is asked again.
const NEXT_TURN: Duration = Duration::from_secs(1);

/// Says what is wrong and what to do; whether all is well.
pub(super) async fn doctor(args: &DoctorArgs, desk: &Desk<'_>) -> Result<u8, Failure> {
    let findings = if names_a_server(&args.server, desk) {
        // On another machine, for all that is known.
        ask(args, desk).await?
    } else {
        of_this_machine(args, desk).await
    };
    let report = if args.json {
        format!("{}\n", doctor::to_json(&findings))
    } else {
        let printer = &desk.printer;
        let (colours, chinese, columns) = (printer.colours, printer.chinese, printer.columns);
        doctor::text(&findings, Look { colours, chinese, columns })
    };
    print(&report)?;
    Ok(if doctor::is_well(&findings) { 0 } else { NOT_ALL_WELL })
}

/// What the server finds out about itself.
async fn ask(args: &DoctorArgs, desk: &Desk<'_>) -> Result<Vec<Finding>, Failure> {
    let server = Connection::find(&args.server, desk)?;
    // What is alive answers this at once: a server that hangs is not waited for as long as one that looks.
    server.ask(Ask::get(&["healthz"])).await?;
    let ask = || Ask { patience: PATIENCE, ..Ask::get(&["v1", "doctor"]) };
    let mut turns = PATIENCE.as_secs() / NEXT_TURN.as_secs();
    let answer = loop {
        match server.json(ask()).await {
            // It looks for somebody else.
            Err(failure) if failure.refusal.as_deref() == Some("examining") && turns > 0 => {
                turns -= 1;
                tokio::time::sleep(NEXT_TURN).await;
            }
            answer => break answer?,
        }
    };
    doctor::from_json(&answer).ok_or_else(|| {
        Failure::new(EX_PROTOCOL, "what answers is no report: is that a server of this version?")
            .zh("应答不是检查报告：对方是本版本的服务器吗？")
    })
}

async fn of_this_machine(args: &DoctorArgs, desk: &Desk<'_>) -> Vec<Finding> {
    let asked = ask(args, desk).await;
    // What is wrong with the rest of the config does not keep a server from being found.
    let outcome = match &asked {
        Ok(_) => Asked::Answered,
        Err(failure) if failure.refusal.is_some() => Asked::Refused,
        Err(_) => Asked::Unanswered,
    };
    let server = config::whereabouts(desk.file, desk.environment).map_or_else(
        |_| Presence::Absent { is_taken: false },
        |found| Presence::of(&found, desk.file, outcome),
    );
    let mut findings = Vec::new();
    match &asked {
        Ok(of_server) => findings.extend(of_server.iter().cloned()),
        Err(failure) => findings.extend(server.not_asked(&failure.words())),
    }
    match &config::load(desk.file, desk.environment) {
        Ok(config) => {
            // What answers has looked at its hosts itself.
            if asked.is_err() {
                findings.extend(doctor::of_upstream(config, &server, &desk.clock).await);
            }
            findings.extend(doctor::of_machine(config, &server, desk.clock.now().wall));
        }
        Err(errors) => findings.extend(doctor::mistakes(errors, &server)),
    }
    findings
}
