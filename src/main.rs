//! Arguments, config, logging, run, exit code; nothing else.

use std::fmt::Display;
use std::path::Path;
use std::process::ExitCode;

use clap::Parser;
use wechat_token_server::app::{self, Certificates, StartError};
use wechat_token_server::check::Plan;
use wechat_token_server::cli::{self, Cli, Command, OperatorCommand, SandboxArgs};
use wechat_token_server::clock::SystemClock;
use wechat_token_server::config::{self, Config, Environment, LogConfig};
use wechat_token_server::logging;
use wechat_token_server::notify;
use wechat_token_server::operator::{
    self, Desk, EX_CONFIG, EX_OSERR, EX_TEMPFAIL, Printer, note, print,
};
use wechat_token_server::outbound::Outbound;
use wechat_token_server::shutdown::{Signal, Signals};
use wechat_token_server::store::Refused;
use wechat_token_server::supervisor::{self, Sockets};

/// What was in flight could not be finished within the grace period.
const UNFINISHED: u8 = 1;
/// A test message could not be delivered.
const UNDELIVERED: u8 = 1;

fn main() -> ExitCode {
    logging::hush_panics();
    let cli = Cli::parse();
    let environment = Environment::of_process();
    // Set but empty means unset, as elsewhere.
    let directives = environment.get("RUST_LOG").filter(|directives| !directives.trim().is_empty());
    if let Some(Command::Sandbox(args)) = cli.command {
        return match logging::start(&LogConfig::default(), directives) {
            Ok(()) => with_runtime(play(args)),
            Err(message) => fail(EX_OSERR, message),
        };
    }
    match cli.command {
        Some(Command::Completions { shell }) => return say(&cli::completions(shell)),
        Some(Command::Man) => return say(&cli::manual()),
        _ => {}
    }
    if let Some(Command::Operator(command)) = &cli.command {
        let (file, clock) = (cli.config(), SystemClock::shared());
        let printer = Printer::of(&environment);
        let desk = Desk { file, environment: &environment, clock, printer };
        if let OperatorCommand::Import(_) = command {
            // What the store has to say of itself; for all else there is nothing to log.
            let quiet = LogConfig { level: "warn".into(), ..LogConfig::default() };
            if let Err(message) = logging::start(&quiet, directives) {
                return fail(EX_OSERR, message);
            }
        }
        return with_runtime(async {
            match operator::run(command, &desk).await {
                Ok(code) => ExitCode::from(code),
                Err(failure) => fail(failure.code, failure.told(&desk.printer)),
            }
        });
    }
    let config = match config::load(cli.config(), &environment) {
        Ok(config) => config,
        Err(errors) => {
            let hint = "No WeChat account at hand? `wechat-token-server sandbox` runs everything without one.";
            return fail(EX_CONFIG, format!("{errors}\n\n{hint}"));
        }
    };
    if let Some(Command::Check) = cli.command {
        return check(config);
    }
    if let Some(Command::NotifyTest) = cli.command {
        return with_runtime(notify_test(config, Printer::of(&environment)));
    }
    let sockets = match Sockets::passed(&environment) {
        Ok(sockets) => sockets,
        Err(message) => return fail(EX_CONFIG, message),
    };
    match logging::start(&config.log, directives) {
        Ok(()) => with_runtime(serve(sockets, config, cli.config(), &environment)),
        Err(message) => fail(EX_CONFIG, message),
    }
}

fn with_runtime(run: impl Future<Output = ExitCode>) -> ExitCode {
    match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => {
            let code = runtime.block_on(run);
            // A disk that hangs must not keep the process: what it holds is lost either way.
            runtime.shutdown_background();
            code
        }
        Err(error) => fail(EX_OSERR, format!("the runtime cannot start: {error}")),
    }
}

async fn serve(
    sockets: Sockets,
    config: Config,
    file: &Path,
    environment: &Environment,
) -> ExitCode {
    let mut signals = match Signals::listen() {
        Ok(signals) => signals,
        Err(error) => return fail(EX_OSERR, format!("signals cannot be caught: {error}")),
    };
    let start = std::pin::pin!(app::start_on(sockets, config, SystemClock::shared()));
    let started = tokio::select! {
        started = start => started,
        // Nothing is served yet, so there is nothing to finish.
        signal = signals.stop() => {
            tracing::info!(signal, "stopped before it could serve");
            return ExitCode::SUCCESS;
        }
    };
    let mut server = match started {
        Ok(server) => server,
        Err(error) => {
            let code = match error {
                StartError::Store(Refused::Locked(_)) => EX_TEMPFAIL,
                StartError::Store(Refused::WrongKey(_))
                | StartError::Outbound(_)
                | StartError::Tls(_)
                | StartError::KeptSecret { .. }
                | StartError::Elsewhere { .. } => EX_CONFIG,
                StartError::Bind { .. } | StartError::Thread(_) | StartError::NoRandomness(_) => {
                    EX_OSERR
                }
            };
            return fail(code, error);
        }
    };
    let mut orders = server.reload_orders().expect("nobody else has taken them");
    supervisor::ready(&server.status());
    tokio::spawn(supervisor::watch(server.runtimes()));
    let signal = loop {
        let order = tokio::select! {
            signal = signals.next() => match signal {
                Signal::Stop(signal) => break signal,
                Signal::Reload => None,
            },
            Some(order) = orders.recv() => Some(order),
        };
        supervisor::reloading();
        let outcome = server.reload(file, environment);
        // What they are is in the log, and everything goes on as before.
        let mistakes = match &outcome {
            Ok(_) => String::new(),
            Err(errors) => {
                let count = errors.mistakes().len();
                format!("; not reloaded, the config has mistakes ({count}): see the log")
            }
        };
        supervisor::ready(&(server.status() + &mistakes));
        if let Some(order) = order {
            // Whoever ordered it may have left.
            let _ = order.send(outcome);
        }
    };
    // Who waits for one is answered now.
    drop(orders);
    tracing::info!(signal, "stopping");
    supervisor::stopping();
    ended(server.stop().await)
}

async fn play(args: SandboxArgs) -> ExitCode {
    let mut signals = match Signals::listen() {
        Ok(signals) => signals,
        Err(error) => return fail(EX_OSERR, format!("signals cannot be caught: {error}")),
    };
    match app::sandbox::start(args, SystemClock::shared()).await {
        Ok(sandbox) => {
            // It plays on where nobody can be greeted: the log says where.
            let _ = print(&sandbox.greeting);
            // A terminal that is closed (SIGHUP) ends it too: it has no config file to read again.
            signals.next().await;
            ended(sandbox.stop().await)
        }
        Err(message) => fail(EX_OSERR, message),
    }
}

fn check(mut config: Config) -> ExitCode {
    let kept = app::advice_on_kept_secret(&config).map(|advice| config.advice.extend(advice));
    if let Err(failure) = print(&Plan(&config).to_string()) {
        return fail(failure.code, failure);
    }
    if let Err(error) = kept {
        return fail(EX_CONFIG, error);
    }
    if let Err(error) = Outbound::new(&config.outbound) {
        return fail(EX_CONFIG, error);
    }
    match Certificates::read(&config) {
        Ok(certificates) => say(&certificates.lives(SystemClock::shared().now().wall)),
        Err(mistakes) => fail(EX_CONFIG, StartError::Tls(mistakes)),
    }
}

/// Sends a test message to every webhook, one after the other.
async fn notify_test(config: Config, printer: Printer) -> ExitCode {
    let outbound = match Outbound::new(&config.outbound) {
        Ok(outbound) => outbound,
        Err(error) => return fail(EX_CONFIG, error),
    };
    if config.webhooks.is_empty() {
        return fail(
            EX_CONFIG,
            printer.either(
                "the config has no webhooks; docs/webhooks.md says how to set them up",
                "配置中没有 webhooks；设置方法见 docs/webhooks.md",
            ),
        );
    }
    let clock = SystemClock::shared();
    let mut code = ExitCode::SUCCESS;
    for webhook in &config.webhooks {
        let name = &webhook.name;
        match notify::test(webhook, &outbound, &clock).await {
            Ok(()) => {
                let said =
                    printer.either(format!("{name}: delivered\n"), format!("{name}：已送达\n"));
                if let Err(failure) = print(&said) {
                    code = fail(failure.code, failure.told(&printer));
                }
            }
            Err(why) => {
                let said = printer.either(
                    format!("{name}: not delivered: {why}"),
                    format!("{name}：未送达：{why}"),
                );
                code = fail(UNDELIVERED, said);
            }
        }
    }
    code
}

fn ended(finished: bool) -> ExitCode {
    tracing::info!("stopped");
    if finished { ExitCode::SUCCESS } else { ExitCode::from(UNFINISHED) }
}

/// Says what a command came to, on standard output.
fn say(text: &str) -> ExitCode {
    match print(text) {
        Ok(_) => ExitCode::SUCCESS,
        Err(failure) => fail(failure.code, failure),
    }
}

/// Says why the program ends, on standard error: a log may not have been started.
fn fail(code: u8, why: impl Display) -> ExitCode {
    note(&why.to_string());
    ExitCode::from(code)
}
