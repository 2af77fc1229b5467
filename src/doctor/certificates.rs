//! What a listener shows to its clients: whether its certificate and private key can be served, who may read the
//! key, and until when the certificate is good.

use std::fs;
use std::io;
use std::path::Path;
use std::time::SystemTime;

use super::files;
use super::finding::{Finding, Topic, words};
use crate::config::{self, Config, Mistake, TlsConfig};
use crate::tls::{Life, Listener, Loaded};

static HTTP: Listener = Listener { setting: "http.tls", alpn: &[], in_the_clear: b"" };
static RESP: Listener = Listener { setting: "resp.tls", alpn: &[], in_the_clear: b"" };

/// Looks at the files of each listener that speaks TLS.
pub(super) fn look(config: &Config, now: SystemTime) -> Vec<Finding> {
    let http = config.http.tls.as_ref().map(|tls| (&HTTP, tls));
    let resp = config.resp.as_ref().and_then(|resp| resp.tls.as_ref()).map(|tls| (&RESP, tls));
    [http, resp].into_iter().flatten().flat_map(|(listener, tls)| of(listener, tls, now)).collect()
}

fn of(listener: &Listener, tls: &TlsConfig, now: SystemTime) -> Vec<Finding> {
    let about = format!("{}.key", listener.setting);
    if let Some(finding) = hidden(&about, &tls.key) {
        return vec![finding];
    }
    let mut findings = Vec::new();
    match Loaded::read(listener, tls) {
        Ok(loaded) => findings.push(life(listener, &loaded, now)),
        Err(mistakes) => findings.extend(mistakes.iter().map(unusable)),
    }
    // That others may read a key is advice of the config.
    if tls.key.exists() && config::closing_command(&tls.key).is_none() {
        let what = words("nobody else can read it", "其他用户无法读取");
        findings.push(Finding::ok(Topic::Files, "key_private", &*about, what));
    }
    findings
}

/// A key of another user's, which this one cannot judge and the server may read.
fn hidden(about: &str, key: &Path) -> Option<Finding> {
    let is_hidden =
        fs::File::open(key).is_err_and(|error| error.kind() == io::ErrorKind::PermissionDenied);
    (is_hidden && files::is_strange(key)).then(|| {
        let what = words(
            format!("{} belongs to another user, and was not looked at", key.display()),
            format!("{} 属于其他用户，未检查", key.display()),
        );
        Finding::warning(Topic::Files, "key_not_seen", about, what).remedy(files::who_may_look())
    })
}

fn unusable(mistake: &Mistake) -> Finding {
    let Mistake { path, message } = mistake;
    let what = words(&**message, format!("无法使用：{message}"));
    Finding::problem(Topic::Files, "certificate_unusable", &**path, what).remedy(words(
        "correct it: a server does not start with it, and one that runs goes on with what it had",
        "请改正：服务器无法以此启动；正在运行的服务器继续使用原来的证书",
    ))
}

fn life(listener: &Listener, loaded: &Loaded, now: SystemTime) -> Finding {
    let about = format!("{}.cert", listener.setting);
    let (begin, end) = loaded.span();
    let renew = words(
        "renew it; a running server takes the new file up by itself",
        "请更新证书；正在运行的服务器会自动载入新文件",
    );
    match loaded.life(now) {
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
