//! The addresses that are listened on: free, ours, or whose. By trying to listen, and by what /proc tells of
//! sockets and processes: proc_net_tcp in the kernel's documents, proc_pid_fd(5).

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::files;
use super::finding::{Finding, Topic, Words, words};
use super::presence::Presence;
use crate::config;

/// A listener's setting and what was seen of its address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) setting: &'static str,
    pub(super) address: SocketAddr,
    pub(super) outcome: Outcome,
}

/// What came of trying to listen there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Outcome {
    /// Any port will do.
    Any,
    /// Nobody listens there, and this process could.
    Free,
    /// Somebody listens there; whom, as far as this process may know.
    Taken(Option<Owner>),
    /// Ports below 1024 need a privilege that this process has not.
    NotPermitted,
    /// The machine has no such address.
    NotOurs,
    /// Something else; in the system's words.
    Other(String),
}

/// A process that listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Owner {
    pub(super) pid: u32,
    /// The name of its program, as the system cuts it off.
    pub(super) name: String,
    /// Whether it is a server of ours, and no other command.
    pub(super) is_server: bool,
}

impl Seen {
    /// The process that listens there, as far as that is known.
    pub(super) fn pid(&self) -> Option<u32> {
        match &self.outcome {
            Outcome::Taken(owner) => owner.as_ref().map(|owner| owner.pid),
            _ => None,
        }
    }
}

/// Looks at an address.
pub(super) fn observe(setting: &'static str, address: SocketAddr) -> Seen {
    let outcome = match TcpListener::bind(address) {
        _ if address.port() == 0 => Outcome::Any,
        Ok(_) => Outcome::Free,
        Err(error) => match error.kind() {
            io::ErrorKind::AddrInUse => Outcome::Taken(who_has_open(&sockets(address))),
            // Said before it is looked whether somebody listens there: that is in the tables.
            io::ErrorKind::PermissionDenied => match sockets(address) {
                none if none.is_empty() => Outcome::NotPermitted,
                some => Outcome::Taken(who_has_open(&some)),
            },
            io::ErrorKind::AddrNotAvailable => Outcome::NotOurs,
            _ => Outcome::Other(error.to_string()),
        },
    };
    Seen { setting, address, outcome }
}

/// The sockets that listen at an address, as /proc calls them.
fn sockets(address: SocketAddr) -> Vec<String> {
    let tables = ["/proc/net/tcp", "/proc/net/tcp6"].map(fs::read_to_string);
    let inodes = tables.into_iter().flatten().flat_map(|table| listening(&table, address));
    inodes.map(|inode| format!("socket:[{inode}]")).collect()
}

/// A process that has one of these files or sockets open, by what /proc calls them.
pub(super) fn who_has_open(names: &[String]) -> Option<Owner> {
    // Where systemd passes a socket it has it too: the other one serves.
    let pid = pids()?.filter(|pid| has_open(*pid, names)).max()?;
    Some(process(pid))
}

/// A process, by what /proc tells of it.
pub(super) fn process(pid: u32) -> Owner {
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let name = name.trim().to_owned();
    Owner { pid, is_server: is_server(&name, &line), name }
}

/// The server that was started with this config file, as far as this user may know.
pub(super) fn server_of(config: &Path) -> Option<u32> {
    let config = config.canonicalize().ok()?;
    pids()?.filter(|pid| process(*pid).is_server).find(|pid| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let directory = fs::read_link(format!("/proc/{pid}/cwd"));
        let named = Command::of(&line).config.unwrap_or(config::DEFAULT_PATH.as_ref());
        directory.is_ok_and(|cwd| cwd.join(named).canonicalize().is_ok_and(|path| path == config))
    })
}

/// The processes that this one may see.
fn pids() -> Option<impl Iterator<Item = u32>> {
    let processes = fs::read_dir("/proc").ok()?.flatten();
    Some(processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok()))
}

/// What a command line of ours says, as far as it matters here.
#[derive(Debug, Default)]
struct Command<'a> {
    /// The sub-command.
    name: Option<&'a [u8]>,
    /// The config file.
    config: Option<&'a Path>,
}

impl Command<'_> {
    /// Of a line whose parts end with a zero byte each.
    fn of(line: &[u8]) -> Command<'_> {
        let path = |bytes| Path::new(OsStr::from_bytes(bytes));
        let mut command = Command::default();
        let mut words = line.split(|byte| *byte == 0).skip(1).filter(|word| !word.is_empty());
        while let Some(word) = words.next() {
            match word {
                b"-c" | b"--config" => command.config = words.next().map(path),
                _ => match (word.strip_prefix(b"--config="), word.strip_prefix(b"-c")) {
                    (Some(value), _) | (None, Some(value)) => command.config = Some(path(value)),
                    _ if command.name.is_none() && !word.starts_with(b"-") => {
                        command.name = Some(word);
                    }
                    _ => {}
                },
            }
        }
        command
    }
}

/// Whether this is a server of ours, by its name and its command line.
fn is_server(name: &str, line: &[u8]) -> bool {
    // The system keeps fifteen bytes of a name: proc_pid_comm(5).
    let is_ours = env!("CARGO_PKG_NAME").get(..15) == Some(name);
    is_ours && matches!(Command::of(line).name, None | Some(b"serve"))
}

/// Of other users' processes only root may know.
fn has_open(pid: u32, names: &[String]) -> bool {
    let files = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    let mut targets = files.filter_map(|file| fs::read_link(file.path()).ok());
    targets.any(|target| names.iter().any(|name| target.as_os_str() == name.as_str()))
}

/// The inodes of the sockets of a table that listen at this address, or everywhere.
fn listening(table: &str, address: SocketAddr) -> Vec<u64> {
    let of_line = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let (&local, &state, &inode) = (fields.get(1)?, fields.get(3)?, fields.get(9)?);
        let (ip, port) = local.split_once(':')?;
        let (ip, port) = (parse_ip(ip)?, u16::from_str_radix(port, 16).ok()?);
        let meets = ip.is_unspecified() || address.ip().is_unspecified() || ip == address.ip();
        // 0A: LISTEN.
        (state == "0A" && port == address.port() && meets).then(|| inode.parse().ok())?
    };
    table.lines().skip(1).filter_map(of_line).collect()
}

/// An address as the kernel prints it: words of four bytes, each in the machine's order.
fn parse_ip(hex: &str) -> Option<IpAddr> {
    let word = |at: usize| {
        let word = u32::from_str_radix(hex.get(at * 8..at * 8 + 8)?, 16).ok()?;
        Some(word.to_ne_bytes())
    };
    match hex.len() {
        8 => Some(Ipv4Addr::from(word(0)?).into()),
        32 => {
            let words = [word(0)?, word(1)?, word(2)?, word(3)?];
            let mut bytes = [0; 16];
            bytes.copy_from_slice(words.as_flattened());
            Some(Ipv6Addr::from(bytes).to_canonical())
        }
        _ => None,
    }
}

/// What is to be said of an address, by what is known of the server.
pub(super) fn judge(seen: &Seen, server: &Presence) -> Finding {
    let Seen { setting, address, outcome } = seen;
    let about = format!("{setting} {address}");
    let ok = |code, what| Finding::ok(Topic::Ports, code, &*about, what);
    let problem = |code, what: Words, remedy: Words| {
        Finding::problem(Topic::Ports, code, &*about, what).remedy(remedy)
    };
    match outcome {
        Outcome::Any => ok("port_any", words("takes any free port", "使用任意空闲端口")),
        Outcome::Free if server.has_store() => problem(
            "port_not_served",
            words("the server runs, but nobody listens there", "服务器在运行，但该地址没有监听"),
            words(
                "if the config was changed since its start, restart it; if it runs in another container or network \
                 namespace, run doctor there",
                "若配置在启动之后有改动，请重启服务器；若它运行在另一容器或网络命名空间，请在那里运行 doctor",
            ),
        ),
        Outcome::Free => ok("port_free", words("is free", "空闲")),
        Outcome::Taken(owner) => {
            let is_its_own = server.has_store()
                && match owner {
                    Some(owner) => server.pid() == Some(owner.pid) || owner.pid == 1,
                    // Who it is may not be known to this user; that it is ours is what there is to believe.
                    None => true,
                };
            match owner {
                _ if is_its_own => {
                    ok("port_ours", words("the server listens there", "服务器正在监听"))
                }
                None if *server == Presence::Untold => Finding::warning(
                    Topic::Ports,
                    "port_untold",
                    &*about,
                    words(
                        "somebody listens there, and this user may not see who",
                        "已有程序在监听，但当前用户无权查看是哪个进程",
                    ),
                )
                .remedy(files::who_may_look()),
                _ => taken(&about, owner.as_ref()),
            }
        }
        Outcome::NotPermitted => {
            let what = words("this user may not listen there", "当前用户无权监听该端口");
            let remedy = words(
                "ports below 1024 need a privilege: choose another one, or let systemd pass the socket",
                "1024 以下的端口需要特权：请换一个端口，或由 systemd 传入套接字",
            );
            match server {
                // This user need not be the server's.
                Presence::Untold => {
                    Finding::warning(Topic::Ports, "port_not_permitted", &*about, what)
                        .remedy(remedy)
                }
                _ => problem("port_not_permitted", what, remedy),
            }
        }
        Outcome::NotOurs => problem(
            "address_not_here",
            words("this machine has no such address", "本机没有该地址"),
            words(
                "write one that `ip address` lists, or 0.0.0.0 for all",
                "请改为 `ip address` 列出的地址，或用 0.0.0.0 表示全部",
            ),
        ),
        Outcome::Other(cause) => problem(
            "port_unusable",
            words(format!("cannot be listened on: {cause}"), format!("无法监听：{cause}")),
            words("correct the address", "请修正该地址"),
        ),
    }
}

fn taken(about: &str, owner: Option<&Owner>) -> Finding {
    let who = match owner {
        Some(Owner { pid: 1, name, .. }) => {
            // It holds the socket for the server, and starts that when somebody connects.
            let what = words(
                format!("{name} (process 1) holds it, for the server's socket unit"),
                format!("由 {name}（进程 1）代服务器持有（socket 单元）"),
            );
            return Finding::ok(Topic::Ports, "port_of_systemd", about, what);
        }
        Some(Owner { pid, name, .. }) => words(
            format!("taken by {name} (process {pid})"),
            format!("已被 {name}（进程 {pid}）占用"),
        ),
        None => words(
            "taken by a process of another user, or outside this container",
            "已被其他用户（或容器外）的进程占用",
        ),
    };
    let en = "stop that (`sudo ss -ltnp` shows who it is), or choose another port";
    let zh = "请停止该进程（`sudo ss -ltnp` 可查看），或换一个端口";
    Finding::problem(Topic::Ports, "port_taken", about, who).remedy(words(en, zh))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::finding::Mark;

    #[test]
    fn who_listens_is_found_by_the_tables_and_the_open_files() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let Outcome::Taken(Some(owner)) = observe("http.bind", address).outcome else {
            panic!("not found")
        };
        assert_eq!(owner.pid, std::process::id());
        drop(listener);
        assert_eq!(observe("http.bind", address).outcome, Outcome::Free);
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        assert_eq!(observe("http.bind", any).outcome, Outcome::Any);
        // An address for documents, which no machine has: RFC 5737.
        let elsewhere = "192.0.2.1:8080".parse().unwrap();
        assert_eq!(observe("http.bind", elsewhere).outcome, Outcome::NotOurs);
    }

    #[test]
    fn a_table_is_read_as_the_kernel_writes_it() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
            0: 0100007F:2F5B 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 111 1 0 100\n\
            1: 00000000:2F5B 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 222 1 0 100\n\
            2: 0100007F:2F5B 0100007F:D431 01 00000000:00000000 00:00000000 00000000     0        0 333 1 0 100\n\
            3: 0200007F:2F5B 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 444 1 0 100\n\
            4: junk\n";
        let at = |address: &str| listening(table, address.parse().unwrap());
        if cfg!(target_endian = "little") {
            assert_eq!(at("127.0.0.1:12123"), [111, 222]);
            assert_eq!(at("0.0.0.0:12123"), [111, 222, 444]);
            assert_eq!(at("127.0.0.1:12124"), Vec::<u64>::new());
            let six = table.replace("0100007F:2F5B", "00000000000000000000000001000000:2F5B");
            assert_eq!(listening(&six, "[::1]:12123".parse().unwrap()), [111, 222]);
        }
    }

    #[test]
    fn a_server_is_told_from_the_other_commands() {
        let ours = "wechat-token-se";
        for (name, line, is) in [
            (ours, "wechat-token-server\0", true),
            (ours, "/usr/bin/wechat-token-server\0--config\0/etc/config.ron\0", true),
            (ours, "wechat-token-server\0serve\0-c\0config.ron\0", true),
            (ours, "wechat-token-server\0--config=sandbox\0", true),
            (ours, "wechat-token-server\0-c\0doctor\0", true),
            (ours, "wechat-token-server\0-cdoctor\0", true),
            (ours, "wechat-token-server\0-c\0c.ron\0doctor\0--json\0", false),
            (ours, "wechat-token-server\0import\0redis://h\0", false),
            (ours, "wechat-token-server\0sandbox\0", false),
            ("nginx", "nginx\0", false),
            ("", "", false),
        ] {
            assert_eq!(is_server(name, line.as_bytes()), is, "{line}");
        }
        for (line, config) in [
            ("x\0-c\0a b.ron\0", Some("a b.ron")),
            ("x\0serve\0--config=/etc/c.ron\0", Some("/etc/c.ron")),
            ("x\0-cc.ron\0", Some("c.ron")),
            ("x\0serve\0", None),
            ("x\0--config\0", None),
        ] {
            assert_eq!(Command::of(line.as_bytes()).config, config.map(Path::new), "{line}");
        }
        assert_eq!(server_of(Path::new("/proc/self/status")), None, "nobody is started with that");
    }

    #[test]
    fn an_address_is_free_the_servers_or_somebodys() {
        let owner = |pid| {
            Outcome::Taken(Some(Owner { pid, name: "redis-server".into(), is_server: false }))
        };
        let ours = Presence::Answers { pid: Some(7) };
        let silent = Presence::Silent { pid: Some(7), is_elsewhere: false };
        let unknown = Presence::Answers { pid: None };
        let other = Presence::WithAnotherStore { pid: 9 };
        let (none, untold) = (Presence::Absent { is_taken: true }, Presence::Untold);
        for (outcome, server, mark, code) in [
            (Outcome::Any, &none, Mark::Ok, "port_any"),
            (Outcome::Free, &none, Mark::Ok, "port_free"),
            (Outcome::Free, &ours, Mark::Problem, "port_not_served"),
            (owner(7), &ours, Mark::Ok, "port_ours"),
            (owner(1), &ours, Mark::Ok, "port_ours"),
            (owner(8), &ours, Mark::Problem, "port_taken"),
            (owner(8), &unknown, Mark::Problem, "port_taken"),
            (Outcome::Taken(None), &unknown, Mark::Ok, "port_ours"),
            (Outcome::Taken(None), &ours, Mark::Ok, "port_ours"),
            (owner(8), &none, Mark::Problem, "port_taken"),
            (owner(1), &none, Mark::Ok, "port_of_systemd"),
            (Outcome::Taken(None), &none, Mark::Problem, "port_taken"),
            (owner(7), &silent, Mark::Ok, "port_ours"),
            (owner(8), &silent, Mark::Problem, "port_taken"),
            (Outcome::Free, &silent, Mark::Problem, "port_not_served"),
            (Outcome::Free, &untold, Mark::Ok, "port_free"),
            (Outcome::Taken(None), &untold, Mark::Warning, "port_untold"),
            (owner(8), &other, Mark::Problem, "port_taken"),
            (Outcome::Free, &other, Mark::Ok, "port_free"),
            (Outcome::NotPermitted, &none, Mark::Problem, "port_not_permitted"),
            (Outcome::NotPermitted, &untold, Mark::Warning, "port_not_permitted"),
            (Outcome::NotOurs, &none, Mark::Problem, "address_not_here"),
            (Outcome::Other("why".into()), &none, Mark::Problem, "port_unusable"),
        ] {
            let address = SocketAddr::from(([127, 0, 0, 1], 6379));
            let seen = Seen { setting: "resp.bind", address, outcome };
            let finding = judge(&seen, server);
            assert_eq!((finding.mark, &*finding.code), (mark, code), "{seen:?} {server:?}");
            assert_eq!(finding.remedy.is_none(), mark == Mark::Ok);
            assert!(finding.about.starts_with("resp.bind 127.0.0.1:6379"));
            let is_named = matches!(&seen.outcome, Outcome::Taken(Some(_))) && code == "port_taken";
            assert_eq!(finding.what.en.contains("redis-server (process 8)"), is_named);
        }
    }
}
