//! The command line: sub-commands, their flags, their help. Parses; `main` and `operator` carry out.

use std::convert::Infallible;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, CommandFactory, Parser, Subcommand};
use clap_complete::Shell;
use clap_mangen::Man;
use url::Url;

use crate::config;
use crate::duration::parse_duration;
use crate::sandbox::{Fault, Rule, parse_life};
use crate::token::Secret;

/// One central server (中控服务器) for WeChat access_token and jsapi_ticket.
///
/// It alone fetches them, renews them ahead of their end, keeps them over a restart, and serves
/// them over HTTP and the Redis protocol. Without a sub-command it serves.
#[derive(Debug, Parser)]
#[command(name = "wechat-token-server", version, about, long_about, disable_help_subcommand = true)]
pub struct Cli {
    /// The config file [default: config.ron; where there is none, commands other than serve take
    /// /etc/wechat-token-server/config.ron]; sandbox, completions and man read none
    #[arg(long, short, value_name = "FILE", global = true)]
    config: Option<PathBuf>,

    /// What to do.
    #[command(subcommand)]
    pub command: Option<Command>,
}

impl Cli {
    /// The config file: the named one, or the one in the working directory, or, for a command about a server,
    /// the one that a package has installed. What serves does not look there: run by hand it would be the
    /// second one, or leave files of the wrong owner in the store.
    pub fn config(&self) -> &Path {
        let [here, installed] = [config::DEFAULT_PATH, config::INSTALLED_PATH].map(Path::new);
        match (&self.config, &self.command) {
            (Some(named), _) => named,
            (None, None | Some(Command::Serve)) => here,
            (None, Some(_)) if !here.exists() && installed.exists() => installed,
            (None, Some(_)) => here,
        }
    }
}

/// The sub-commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve tokens (what is done without a sub-command).
    Serve,
    /// Validate the config and say what it would do; nothing is started or fetched.
    Check,
    /// Send a test message to every webhook of the config, and say what came of it.
    NotifyTest,
    /// Try everything without a WeChat account: a stand-in for the WeChat API and a fresh server.
    Sandbox(SandboxArgs),
    /// Print a script that completes this command's words: wechat-token-server completions bash
    Completions {
        /// The shell
        shell: Shell,
    },
    /// Print the manual page: wechat-token-server man | man -l -
    Man,
    /// What is asked of a running server, or done to a store
    #[command(flatten)]
    Operator(OperatorCommand),
}

/// The script that completes the words of this command in a shell.
pub fn completions(shell: Shell) -> String {
    let mut command = Cli::command();
    let name = command.get_name().to_owned();
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut command, name, &mut script);
    String::from_utf8_lossy(&script).into_owned()
}

/// The manual page: what `--help` says, of the program and below it of each sub-command.
pub fn manual() -> String {
    let mut command = Cli::command();
    command.build();
    let man = Man::new(command.clone()).section("1");
    let mut page = rendered(|page| man.render_title(page));
    page.push_str(&rendered(|page| man.render_name_section(page)));
    describe(&command, "", &mut page);
    page.push_str(ENVIRONMENT);
    page
}

/// A command, and those below it, as sections of the one page: what clap_mangen makes of each is a page.
fn describe(command: &clap::Command, heading: &str, page: &mut String) {
    let man = Man::new(command.clone());
    let sections = [
        rendered(|page| man.render_synopsis_section(page)),
        rendered(|page| man.render_description_section(page)),
        rendered(|page| man.render_options_section(page)),
    ];
    let sections = sections.concat();
    if heading.is_empty() {
        page.push_str(&sections);
    } else {
        page.push_str(&format!(".SH \"{}\"\n", heading.to_uppercase()));
        page.push_str(&sections.replace(".SH ", ".SS "));
    }
    for below in command.get_subcommands() {
        describe(below, format!("{heading} {}", below.get_name()).trim_start(), page);
    }
}

/// A part of the page, without the definitions that each part begins with, but for the first.
fn rendered(render: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> String {
    let mut part = Vec::new();
    render(&mut part).expect("a Vec takes what is written");
    let part = String::from_utf8_lossy(&part).into_owned();
    if part.contains("\n.TH ") { part } else { part.replace(PROLOGUE, "") }
}

/// What clap_mangen puts before each part.
const PROLOGUE: &str = ".ie \\n(.g .ds Aq \\(aq\n.el .ds Aq '\n";

/// What no flag tells.
const ENVIRONMENT: &str = r#".SH ENVIRONMENT
.TP
\fBWECHAT_TOKEN_SERVER_URL\fR, \fBWECHAT_TOKEN_SERVER_KEY\fR
The server that is asked, and the key for it, in the place of those of the config.
.TP
\fBREDISCLI_AUTH\fR
The password of the Redis that \fBimport\fR reads.
.TP
\fBRUST_LOG\fR
Log levels, in the place of the config's.
.TP
\fBNO_COLOR\fR, \fBCOLUMNS\fR, \fBLC_ALL\fR, \fBLC_MESSAGES\fR, \fBLANG\fR
Whether and how wide \fBstatus\fR is shown, and whether what to do is said in Chinese.
.SH EXIT STATUS
0: done. 1: not all sources are live, \fBdoctor\fR found a problem, or not everything in flight was finished. 2, 64: the words of the
command make no sense. 65: what is named is not there. 69: no server answers. 71: the system refuses something.
75: not now. 76: what answers is no such server. 77: the key is wrong. 78: the config has mistakes.
"#;

/// The sub-commands of an operator beside serving.
#[derive(Debug, Subcommand)]
pub enum OperatorCommand {
    /// Show how the sources of the running server are; exits with 1 unless all are live
    Status(StatusArgs),
    /// Print a token and nothing else: TOKEN=$(wechat-token-server get access_token)
    Get(GetArgs),
    /// Have the running server fetch another token
    Refresh(RefreshArgs),
    /// See how many calls of the day are used up, or have WeChat give them back
    Quota(QuotaArgs),
    /// Have the running server read its config again, as SIGHUP does, and say what has changed
    Reload(ReloadArgs),
    /// Take the running tokens of an old server over from its Redis, before the first start
    ///
    /// The first start serves them then and fetches nothing, which would end them under the old server. This
    /// server must not be running; no value is printed.
    Import(ImportArgs),
    /// Find out what is wrong and say what to do; exits with 1 if something is
    Doctor(DoctorArgs),
}

/// Which running server is asked. By default the one of the config file, with its request_secret.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Which server is asked")]
pub struct ServerArgs {
    /// Ask the server at this address instead of the config's; the variable
    /// WECHAT_TOKEN_SERVER_URL does the same. The key comes from the variable
    /// WECHAT_TOKEN_SERVER_KEY then: a key on a command line could be seen in `ps`
    #[arg(long, value_name = "URL", value_parser = unseen)]
    pub url: Option<Secret>,

    /// A PEM file of authorities to trust beside the known ones, or the server's own certificate.
    /// (A server of the config is trusted by its http.tls.cert alone, whatever names are in it)
    #[arg(long, value_name = "FILE")]
    pub ca: Option<PathBuf>,

    /// A PEM file with the certificate to show to a server that asks for one (http.tls.client_ca),
    /// and with its private key
    #[arg(long, value_name = "FILE")]
    pub identity: Option<PathBuf>,
}

/// Flags of `status`.
#[derive(Debug, Args)]
pub struct StatusArgs {
    /// Print what the server answers, as JSON
    #[arg(long)]
    pub json: bool,

    /// Show it again every two seconds until interrupted
    #[arg(long)]
    pub watch: bool,

    /// Which server is asked
    #[command(flatten)]
    pub server: ServerArgs,
}

/// Flags of `get`.
#[derive(Debug, Args)]
pub struct GetArgs {
    /// The name of a source, such as access_token
    pub name: String,

    /// Which server is asked
    #[command(flatten)]
    pub server: ServerArgs,
}

/// Flags of `refresh`.
#[derive(Debug, Args)]
pub struct RefreshArgs {
    /// The name of a source, such as access_token
    pub name: String,

    /// The token that was refused, or its SHA-256 in hexadecimal digits: another one is fetched only if
    /// this is still the current one. Everybody on this machine can see it in `ps` while the command
    /// runs; "-" reads it from standard input instead
    #[arg(long, value_name = "TOKEN")]
    pub stale: Option<String>,

    /// Ask for a new token although the old one is good, where the upstream knows that (stable_token:
    /// 20 a day, 30 seconds apart). The old one dies at once
    #[arg(long)]
    pub force: bool,

    /// Print the token, and nothing else
    #[arg(long)]
    pub print: bool,

    /// Which server is asked
    #[command(flatten)]
    pub server: ServerArgs,
}

/// Flags of `doctor`.
#[derive(Debug, Args)]
pub struct DoctorArgs {
    /// Print the findings as JSON
    #[arg(long)]
    pub json: bool,

    /// Which server is asked
    #[command(flatten)]
    pub server: ServerArgs,
}

/// Flags of `quota`.
#[derive(Debug, Args)]
pub struct QuotaArgs {
    /// What about it
    #[command(subcommand)]
    pub command: QuotaCommand,
}

/// What `quota` does.
#[derive(Debug, Subcommand)]
pub enum QuotaCommand {
    /// The calls of the day, and the resets of the month, by source
    Show {
        /// Only this source
        name: Option<String>,

        /// Which server is asked
        #[command(flatten)]
        server: ServerArgs,
    },
    /// Have WeChat give the calls of a source's account back (clear_quota/v2), and the sources go on that
    /// had waited for the next day
    ///
    /// WeChat does that ten times a month for an account, counted together with those in its console. All
    /// calls of the account are given back, not only those for tokens.
    Reset {
        /// The name of a source of the account
        name: String,

        /// Do not ask whether that is meant
        #[arg(long)]
        yes: bool,

        /// Which server is asked
        #[command(flatten)]
        server: ServerArgs,
    },
}

/// Flags of `import`.
#[derive(Debug, Args)]
pub struct ImportArgs {
    /// The old Redis: redis://user:password@host:port/database, all but the host optional; rediss:// for TLS. Everybody on
    /// this machine can see a password here in `ps`; leave it out and put it into the variable
    /// REDISCLI_AUTH, as for redis-cli
    #[arg(value_name = "URL", value_parser = unseen)]
    pub from: Secret,

    /// A key of the old Redis, and the source its token is for; may be repeated. By default
    /// the original server's access_token and ticket
    #[arg(value_name = "KEY=SOURCE")]
    pub keys: Vec<String>,

    /// Put them in the place of tokens that the store has already
    #[arg(long)]
    pub replace: bool,

    /// A PEM file of authorities to trust beside the known ones, or the Redis' own certificate
    #[arg(long, value_name = "FILE")]
    pub ca: Option<PathBuf>,
}

/// Takes a text that may hold a secret. Whether it makes sense is seen later: clap would repeat it.
fn unseen(text: &str) -> Result<Secret, Infallible> {
    Ok(Secret::new(text))
}

/// Flags of `reload`.
#[derive(Debug, Args)]
pub struct ReloadArgs {
    /// Which server is asked
    #[command(flatten)]
    pub server: ServerArgs,
}

/// Reads the address of a server, of `--url` or of the variable that stands for it. The key is no part
/// of it: what stands on a command line can be seen.
///
/// # Errors
/// What is wrong with it, in words that do not repeat it.
pub fn server_url(text: &str) -> Result<Url, &'static str> {
    let url = Url::parse(text).ok().filter(|url| matches!(url.scheme(), "http" | "https"));
    let url = url.filter(Url::has_host).ok_or("write http://host:port or https://host:port")?;
    let is_bare = url.username().is_empty() && url.password().is_none();
    if !is_bare || url.query().is_some() || url.fragment().is_some() {
        return Err("it holds more than an address; the key is read from WECHAT_TOKEN_SERVER_KEY");
    }
    Ok(url)
}

/// Flags of `sandbox`.
#[derive(Debug, Args)]
pub struct SandboxArgs {
    /// How long tokens live
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = parse_life)]
    pub lifetime: Duration,

    /// How long each answer of the stand-in takes
    #[arg(long, value_name = "DURATION", default_value = "50ms", value_parser = parse_duration)]
    pub latency: Duration,

    /// A fault to begin with, such as "kind=errcode&code=40164&times=3"; may be repeated
    #[arg(long, value_name = "FAULT")]
    pub fault: Vec<Fault>,

    /// Another rule of the stand-in, such as overlap=2s or token_quota=10; may be repeated
    #[arg(long = "set", value_name = "NAME=VALUE")]
    pub rules: Vec<Rule>,

    /// Where HTTP is served; a free port is taken when this one is not
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:12123", value_parser = loopback)]
    pub http: SocketAddr,

    /// Where the Redis protocol is served; a free port is taken when this one is not
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:6379", value_parser = loopback)]
    pub resp: SocketAddr,

    /// Where the stand-in for the WeChat API listens; a free port is taken when this one is not
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:12124", value_parser = loopback)]
    pub upstream: SocketAddr,
}

/// Tokens of the sandbox are worthless, but its control surface lets everybody do everything.
fn loopback(text: &str) -> Result<SocketAddr, String> {
    let address: SocketAddr =
        text.parse().map_err(|_| "write an address such as 127.0.0.1:12123".to_owned())?;
    if address.ip().is_loopback() {
        Ok(address)
    } else {
        Err("the sandbox serves this machine only: write a loopback address".into())
    }
}
