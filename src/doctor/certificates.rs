//! What a listener shows to its clients: whether its certificate and private key can be served, who may read them,
//! and until when the certificate is good.

use std::path::PathBuf;
use std::time::SystemTime;

use super::files;
use super::finding::{Finding, Topic, words};
use super::permissions::User;
use crate::config::{self, Config, Mistake, TlsConfig};
use crate::tls::{Life, Listener, Loaded};

static HTTP: Listener = Listener { setting: "http.tls", alpn: &[], in_the_clear: b"" };
static RESP: Listener = Listener { setting: "resp.tls", alpn: &[], in_the_clear: b"" };

/// What was seen of the files of one listener.
#[derive(Debug)]
struct Seen {
    setting: &'static str,
    files: State,
    /// Whether others than the key's owner may read it: the config's advice says so.
    is_exposed: bool,
    /// What keeps the server's user from a file, where this process is another.
    in_the_way: Option<PathBuf>,
}

#[derive(Debug)]
enum State {
    /// They can be served; how far the certificate is in its life, and from when to when that lasts.
    Served { life: Life, begin: String, end: String },
    /// They cannot.
    Unusable(Vec<Mistake>),
    /// This user may not read the key, and is not the server's.
    Hidden,
}

/// Looks at the files of each listener that speaks TLS, and says what there is to say.
pub(super) fn look(config: &Config, now: SystemTime) -> Vec<Finding> {
    let http = config.http.tls.as_ref().map(|tls| (&HTTP, tls));
    let resp = config.resp.as_ref().and_then(|resp| resp.tls.as_ref()).map(|tls| (&RESP, tls));
    let server = files::owner(&config.store.path);
    let both = [http, resp].into_iter().flatten();
    both.flat_map(|(listener, tls)| judge(&observe(listener, tls, server, now))).collect()
}

/// `server`: the user of the server, if it is known to be another than ours.
fn observe(listener: &Listener, tls: &TlsConfig, server: Option<u32>, now: SystemTime) -> Seen {
    let read = Loaded::read(listener, tls);
    let is_readable = std::fs::File::open(&tls.key).is_ok();
    let files = match read {
        Ok(loaded) => {
            let (begin, end) = loaded.span();
            State::Served { life: loaded.life(now), begin, end }
        }
        Err(_) if server.is_some() && !is_readable && files::is_strange(&tls.key) => State::Hidden,
        Err(mistakes) => State::Unusable(mistakes),
    };
    let in_the_way = server.map(User::of).filter(|_| is_readable).and_then(|user| {
        let files = [Some(&tls.key), Some(&tls.cert), tls.client_ca.as_ref()];
        files.into_iter().flatten().find_map(|file| user.kept_from(file))
    });
    let is_exposed = config::closing_command(&tls.key).is_some();
    Seen { setting: listener.setting, files, is_exposed, in_the_way }
}

fn judge(seen: &Seen) -> Vec<Finding> {
    let Seen { setting, files, is_exposed, in_the_way } = seen;
    let key = format!("{setting}.key");
    let mut findings = match files {
        State::Served { life, begin, end } => vec![judge_life(setting, *life, begin, end)],
        State::Unusable(mistakes) => mistakes.iter().map(unusable).collect(),
        State::Hidden => {
            let what =
                words("belongs to another user, and was not looked at", "属于其他用户，未检查");
            let finding = Finding::warning(Topic::Files, "key_not_seen", &*key, what);
            return vec![finding.remedy(files::who_may_look())];
        }
    };
    if let Some(path) = in_the_way {
        let path = path.display();
        let what = words(
            format!("the server's user may not read {path}, by its mode"),
            format!("按权限位，服务器的运行用户无法读取 {path}"),
        );
        findings.push(Finding::warning(Topic::Files, "key_closed", *setting, what).remedy(words(
            "let it (chgrp, chmod, setfacl), or have whoever renews the certificate copy it to a place of the server's",
            "请授予权限（chgrp、chmod 或 setfacl），或让更新证书的程序把文件复制到服务器的目录",
        )));
    } else if matches!(files, State::Served { .. }) && !is_exposed {
        let what = words("nobody else can read it", "其他用户无法读取");
        findings.push(Finding::ok(Topic::Files, "key_private", key, what));
    }
    findings
}

fn unusable(mistake: &Mistake) -> Finding {
    let Mistake { path, message } = mistake;
    let what = words(&**message, format!("无法使用：{message}"));
    Finding::problem(Topic::Files, "certificate_unusable", &**path, what).remedy(words(
        "correct it: a server does not start with it, and one that runs goes on with what it had",
        "请改正：服务器无法以此启动；正在运行的服务器继续使用原来的证书",
    ))
}

fn judge_life(setting: &str, life: Life, begin: &str, end: &str) -> Finding {
    let about = format!("{setting}.cert");
    let renew = words(
        "renew it; a running server takes the new file up by itself",
        "请更新证书；正在运行的服务器会自动载入新文件",
    );
    match life {
        Life::Good => {
            let what = words(format!("is good until {end}"), format!("有效期至 {end}"));
            Finding::ok(Topic::Files, "certificate_ok", about, what)
        }
        Life::Ending => {
            let what = words(format!("is good until {end} only"), format!("即将过期：{end}"));
            Finding::warning(Topic::Files, "certificate_ends", about, what).remedy(renew)
        }
        Life::Ended => {
            let what = words(
                format!("has expired: it was good until {end}"),
                format!("已过期：有效期至 {end}"),
            );
            Finding::problem(Topic::Files, "certificate_expired", about, what).remedy(renew)
        }
        Life::NotBegun => {
            let what = words(
                format!("is not good before {begin}"),
                format!("尚未生效：自 {begin} 起有效"),
            );
            Finding::problem(Topic::Files, "certificate_not_begun", about, what).remedy(words(
                "see whether this machine's clock is right (`timedatectl`)",
                "请检查本机时钟（`timedatectl`）",
            ))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::finding::Mark;

    #[test]
    fn certificates_are_good_end_or_cannot_be_served() {
        let served = |life| State::Served { life, begin: "b".into(), end: "e".into() };
        let ok = (Mark::Ok, "key_private");
        let broken = || State::Unusable(vec![Mistake::at("http.tls.cert", "is damaged")]);
        let closed = || Some(PathBuf::from("/k"));
        for (files, is_exposed, in_the_way, expected) in [
            (served(Life::Good), false, None, &[(Mark::Ok, "certificate_ok"), ok][..]),
            (served(Life::Good), true, None, &[(Mark::Ok, "certificate_ok")]),
            (served(Life::Ending), false, None, &[(Mark::Warning, "certificate_ends"), ok]),
            (served(Life::Ended), false, None, &[(Mark::Problem, "certificate_expired"), ok]),
            (served(Life::NotBegun), false, None, &[(Mark::Problem, "certificate_not_begun"), ok]),
            (
                served(Life::Good),
                false,
                closed(),
                &[(Mark::Ok, "certificate_ok"), (Mark::Warning, "key_closed")],
            ),
            (broken(), false, None, &[(Mark::Problem, "certificate_unusable")]),
            (State::Hidden, false, None, &[(Mark::Warning, "key_not_seen")]),
        ] {
            let seen = Seen { setting: "http.tls", files, is_exposed, in_the_way };
            let findings = judge(&seen);
            let found: Vec<_> =
                findings.iter().map(|finding| (finding.mark, &*finding.code)).collect();
            assert_eq!(found, expected, "{seen:?}");
            assert!(findings.iter().all(|f| f.remedy.is_none() == (f.mark == Mark::Ok)));
        }
    }
}
