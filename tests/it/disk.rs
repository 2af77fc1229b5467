//! A disk that is full, read-only or slow: tokens are renewed and served from memory, and the last ones
//! land on it when it is well again, by themselves. On a real small file system in a mount namespace of its
//! own; where mounting is not permitted these tests are skipped, and say so.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::process::{Child, Command};
use wechat_token_server::sandbox::{Settings, Upstream};

use crate::support::{
    NO_COOLDOWN, Running, SECRET, binary, config_text, force, get, run, run_with, serve, served,
    soon, upstream, value,
};

/// Nothing listens there.
const NOWHERE: &str = "127.0.0.1:1";

/// A small file system, mounted where the store is to be, that lives until this is dropped.
struct SmallDisk {
    dir: tempfile::TempDir,
    holder: Child,
}

impl SmallDisk {
    /// `None`, and a word to whoever runs the tests, where mounting is not permitted.
    async fn new() -> Option<SmallDisk> {
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().join("store");
        std::fs::create_dir(&place).unwrap();
        let mut holder = Command::new("unshare")
            .args([
                "--mount",
                "sh",
                "-c",
                r#"mount -t tmpfs -o size=6m,mode=700 tmpfs "$0" && echo && exec sleep 1000"#,
            ])
            .arg(&place)
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn();
        let mut answer = [0];
        let mounted = match &mut holder {
            Ok(holder) => holder.stdout.take().unwrap().read(&mut answer).await.unwrap() == 1,
            Err(_) => false,
        };
        if !mounted {
            eprintln!("SKIPPED: no file system can be mounted here (it takes root and unshare)");
            return None;
        }
        Some(SmallDisk { dir, holder: holder.unwrap() })
    }

    fn inside(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        let pid = self.holder.id().unwrap().to_string();
        command.args(["--mount", "--target", &pid, program]).kill_on_drop(true);
        command
    }

    async fn run(&self, upstream: std::net::SocketAddr) -> Running {
        self.run_with(upstream, &[]).await
    }

    async fn run_with(
        &self,
        upstream: std::net::SocketAddr,
        variables: &[(&str, &str)],
    ) -> Running {
        let mut command = self.inside(env!("CARGO_BIN_EXE_wechat-token-server"));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.env_remove("RUST_LOG").envs(variables.iter().copied());
        run_with(command, self.dir.path(), upstream, NO_COOLDOWN).await
    }

    /// Runs a line of shell in the store's directory; whether it succeeds.
    async fn shell(&self, line: &str) -> bool {
        let line = format!(r#"cd "$0" && {line}"#);
        let mut command = self.inside("sh");
        command.arg("-c").arg(line).arg(self.store()).stderr(Stdio::null());
        command.status().await.unwrap().success()
    }

    fn store(&self) -> PathBuf {
        self.dir.path().join("store")
    }

    async fn fill(&self) {
        assert!(!self.shell("cat /dev/zero > filler").await, "it is full now");
    }

    async fn free(&self) {
        assert!(self.shell("rm filler").await);
    }

    async fn remount(&self, how: &str) {
        let line = format!(r#"mount -o remount,{how} "$0""#);
        assert!(self.shell(&line).await, "{how}");
    }
}

/// Tokens so long that a few dozen fill what the database has of the disk.
fn long_tokens() -> Settings {
    Settings { token_quota: None, value_bytes: 6_000, ..Settings::default() }
}

async fn logged(ours: &Running, line: &str) {
    soon(line, async {
        while !ours.log().contains(line) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
}

/// Waits until the access token that was in memory only is on disk.
async fn landed(ours: &Running) {
    soon(LANDED, async {
        let of_ours = |line: &str| line.contains(LANDED) && line.contains(r#""access_token""#);
        while !ours.log().lines().any(of_ours) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
}

const REFUSED: &str = "the disk refuses the store";
const UNUSABLE: &str = "the store cannot be used";
const FROM_MEMORY: &str = "served from memory only";
const WELL: &str = "the disk takes the store's writes again";
const LANDED: &str = "the token is on disk again";

async fn renewed(ours: &Running) -> String {
    let body = force(ours.http, "access_token").await;
    value(&body, "access_token").unwrap_or_else(|| panic!("{body}\n{}", ours.log()))
}

/// Renews until a write has gone wrong, which the store may still have had room for before.
async fn renewed_until_a_write_goes_wrong(ours: &Running) {
    soon("a write that goes wrong", async {
        while !ours.log().contains(FROM_MEMORY) {
            renewed(ours).await;
        }
    })
    .await;
}

/// A server with both tokens whose disk has filled up, and has refused a write of it. `None` as in
/// [`SmallDisk::new`].
async fn on_a_full_disk() -> Option<(SmallDisk, Upstream, Running)> {
    let disk = SmallDisk::new().await?;
    let wechat = upstream(long_tokens()).await;
    let ours = disk.run(wechat.address()).await;
    served(ours.http, "ticket", None).await;
    disk.fill().await;
    renewed_until_a_write_goes_wrong(&ours).await;
    Some((disk, wechat, ours))
}

/// Kills it, and starts it again with the upstream gone: what is served then was on disk.
async fn on_disk(disk: &SmallDisk, mut ours: Running) -> (Option<String>, Running) {
    ours.child.kill().await.unwrap();
    let ours = disk.run(NOWHERE.parse().unwrap()).await;
    (get(ours.resp, "access_token").await, ours)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_fills_up_keeps_no_token_from_being_renewed_and_the_last_one_lands() {
    let Some((disk, wechat, ours)) = on_a_full_disk().await else { return };
    assert!(ours.log().contains(REFUSED));
    let last = renewed(&ours).await;
    assert_eq!(get(ours.resp, "access_token").await.as_ref(), Some(&last));
    assert!(wechat.accepts(&last).is_live());
    disk.free().await;
    // Nobody asks for anything.
    landed(&ours).await;
    assert_eq!(ours.log().matches(WELL).count(), 1, "{}", ours.log());
    let (kept, _) = on_disk(&disk, ours).await;
    assert_eq!(kept, Some(last));
    wechat.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_on_a_full_disk_serves_and_the_tokens_land_when_there_is_space() {
    let Some(disk) = SmallDisk::new().await else { return };
    let wechat = upstream(Settings { token_quota: None, ..Settings::default() }).await;
    disk.fill().await;
    let ours = disk.run(wechat.address()).await;
    let last = served(ours.http, "access_token", None).await;
    assert!(ours.log().contains(UNUSABLE), "{}", ours.log());
    logged(&ours, FROM_MEMORY).await;
    disk.free().await;
    landed(&ours).await;
    let (kept, _) = on_disk(&disk, ours).await;
    assert_eq!(kept, Some(last));
    wechat.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_full_or_read_only_disk_holds_is_served_after_a_restart() {
    let Some(disk) = SmallDisk::new().await else { return };
    let wechat = upstream(Settings { token_quota: None, ..Settings::default() }).await;
    let ours = disk.run(wechat.address()).await;
    served(ours.http, "ticket", None).await;
    let last = renewed(&ours).await;
    let (kept, mut ours) = on_disk(&disk, ours).await;
    assert_eq!(kept.as_ref(), Some(&last));
    ours.child.kill().await.unwrap();
    disk.fill().await;
    let (kept, mut ours) = on_disk(&disk, ours).await;
    assert_eq!(kept.as_ref(), Some(&last), "full\n{}", ours.log());
    ours.child.kill().await.unwrap();
    disk.free().await;
    disk.remount("ro").await;
    let (kept, mut ours) = on_disk(&disk, ours).await;
    assert_eq!(kept, Some(last), "read-only\n{}", ours.log());
    ours.child.kill().await.unwrap();
    // Another one is renewed meanwhile, and lands when the disk is writable again.
    let mut ours = disk.run(wechat.address()).await;
    let last = renewed(&ours).await;
    logged(&ours, FROM_MEMORY).await;
    assert!(!disk.shell(r#"touch x"#).await, "it is read-only");
    disk.remount("rw").await;
    landed(&ours).await;
    ours.child.kill().await.unwrap();
    let (kept, _) = on_disk(&disk, ours).await;
    assert_eq!(kept, Some(last));
    wechat.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_turns_read_only_and_back_keeps_no_token_from_landing() {
    // Only a disk that nobody writes to can be remounted: let it fill up first, and the store let go.
    let Some((disk, wechat, ours)) = on_a_full_disk().await else { return };
    disk.free().await;
    soon("a moment when nobody writes", async {
        while !disk.shell(r#"mount -o remount,ro "$0""#).await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    let last = renewed(&ours).await;
    assert_eq!(get(ours.resp, "access_token").await.as_ref(), Some(&last));
    disk.remount("rw").await;
    landed(&ours).await;
    let (kept, _) = on_disk(&disk, ours).await;
    assert_eq!(kept, Some(last));
    wechat.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_directory_that_is_deleted_is_there_again_after_the_next_write() {
    let wechat = upstream(Settings { token_quota: None, ..Settings::default() }).await;
    let dir = tempfile::tempdir().unwrap();
    let ours = run(dir.path(), wechat.address(), NO_COOLDOWN).await;
    let ticket = served(ours.http, "ticket", None).await;
    std::fs::remove_dir_all(dir.path().join("store")).unwrap();
    let last = renewed(&ours).await;
    assert!(ours.log().contains("deleted or replaced while they were in use"), "{}", ours.log());
    let mut ours = ours;
    ours.child.kill().await.unwrap();
    let ours = run(dir.path(), NOWHERE.parse().unwrap(), NO_COOLDOWN).await;
    assert_eq!(get(ours.resp, "access_token").await, Some(last));
    assert_eq!(get(ours.resp, "ticket").await, Some(ticket), "which nobody has renewed since");
    wechat.stop().await;
}

/// The config of a server that makes its request secret itself, in `dir`, and its store.
fn generating(upstream: std::net::SocketAddr, dir: &std::path::Path) -> (PathBuf, PathBuf) {
    let (file, store) = (dir.join("config.ron"), dir.join("store"));
    let text = config_text(upstream, dir, r#"log: (format: "json"),"#);
    let generated = text.replace(&format!(r#"request_secret: "{SECRET}","#), "");
    std::fs::write(&file, generated).unwrap();
    (file, store)
}

/// The first token, as the Redis protocol gives it, which needs no key here.
async fn served_to_redis(ours: &Running) -> String {
    soon("a token", async {
        loop {
            match get(ours.resp, "access_token").await {
                Some(token) => return token,
                None => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_directory_that_is_deleted_comes_back_by_itself_with_its_request_secret() {
    let wechat = upstream(Settings::default()).await;
    let dir = tempfile::tempdir().unwrap();
    let (file, store) = generating(wechat.address(), dir.path());
    let mut ours = serve(binary(), &file).await;
    let last = served_to_redis(&ours).await;
    let secret = store.join("request_secret");
    let before = std::fs::read_to_string(&secret).unwrap();
    // In one step: a write in between would have the directory there again.
    std::fs::rename(&store, dir.path().join("gone")).unwrap();
    // Nobody asks for anything.
    soon("the request secret", async {
        while !secret.exists() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
    assert_eq!(std::fs::read_to_string(&secret).unwrap(), before);
    ours.child.kill().await.unwrap();
    wechat.stop().await;
    let ours = serve(binary(), &file).await;
    assert_eq!(get(ours.resp, "access_token").await, Some(last));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_directory_that_is_deleted_is_there_again_when_the_server_stops() {
    let wechat = upstream(Settings::default()).await;
    let dir = tempfile::tempdir().unwrap();
    let (file, store) = generating(wechat.address(), dir.path());
    let mut ours = serve(binary(), &file).await;
    let last = served_to_redis(&ours).await;
    let before = std::fs::read_to_string(store.join("request_secret")).unwrap();
    std::fs::rename(&store, dir.path().join("gone")).unwrap();
    ours.signal("-TERM").await;
    ours.child.wait().await.unwrap();
    wechat.stop().await;
    assert_eq!(std::fs::read_to_string(store.join("request_secret")).unwrap(), before);
    let ours = serve(binary(), &file).await;
    assert_eq!(get(ours.resp, "access_token").await, Some(last));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_secret_that_no_start_would_take_is_told_once_by_the_running_server() {
    let wechat = upstream(Settings::default()).await;
    let dir = tempfile::tempdir().unwrap();
    let (file, store) = generating(wechat.address(), dir.path());
    let mut ours = serve(binary(), &file).await;
    let secret = store.join("request_secret");
    let written = "hunter2-hunter2-1\nhunter2-hunter2-2\n";
    std::fs::write(&secret, written).unwrap();
    let words = "the next start will fail: the file of the request secret holds no key";
    ours.logged(words, 1).await;
    // It looks once more when it stops.
    ours.signal("-TERM").await;
    soon("the end", ours.child.wait()).await.unwrap();
    ours.logged("stopped", 1).await;
    let log = ours.log();
    assert_eq!(log.matches(words).count(), 1, "{log}");
    assert!(log.contains("more than one line") && !log.contains("hunter2"), "{log}");
    assert_eq!(std::fs::read_to_string(&secret).unwrap(), written, "it is left as it is");
    wechat.stop().await;
}

/// Starts on `dir` with the store's writes disturbed.
#[cfg(feature = "failpoints")]
async fn disturbed(dir: &std::path::Path, upstream: std::net::SocketAddr, points: &str) -> Running {
    let mut command = binary();
    command.env("STORE_FAILPOINTS", points);
    run_with(command, dir, upstream, NO_COOLDOWN).await
}

#[cfg(feature = "failpoints")]
#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_is_slow_or_refuses_a_write_delays_nobody_for_long() {
    let wechat = upstream(Settings { token_quota: None, ..Settings::default() }).await;
    for points in [
        // Two in a row: one of them is of a token, the other of a count of calls.
        "before the sync=delay:2500@6-7",
        "before the batch=fail@6-7",
        "before the flush=fail@7-8",
        "before the marks=fail@8-9",
        "between the marks=fail@9-10",
    ] {
        let dir = tempfile::tempdir().unwrap();
        let mut ours = disturbed(dir.path(), wechat.address(), points).await;
        served(ours.http, "ticket", None).await;
        renewed_until_a_write_goes_wrong(&ours).await;
        let last = renewed(&ours).await;
        landed(&ours).await;
        ours.child.kill().await.unwrap();
        let ours = run(dir.path(), NOWHERE.parse().unwrap(), NO_COOLDOWN).await;
        assert_eq!(get(ours.resp, "access_token").await, Some(last), "{points}\n{}", ours.log());
    }
    wechat.stop().await;
}
