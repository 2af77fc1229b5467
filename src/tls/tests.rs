//! Files and what becomes of them; with real sockets only where bytes matter. The listeners over TLS
//! are in `tests/it/tls.rs`.

use std::fs;
use std::path::PathBuf;
use std::time::SystemTime;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};

use super::*;
use crate::clock::{Clock, Now, SystemClock};

const LISTENER: Listener = Listener { setting: "x.tls", alpn: &[], in_the_clear: b"no" };

/// A directory with the files of a listener.
struct Dir(tempfile::TempDir);

impl Dir {
    fn new() -> Dir {
        Dir(tempfile::tempdir().unwrap())
    }

    /// Writes a file; its path.
    fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.path().join(name);
        fs::write(&path, text).unwrap();
        path
    }

    /// Writes the certificate and its key as `c.pem` and `k.pem`.
    fn pair(&self, made: &Made) -> TlsConfig {
        let cert = self.file("c.pem", &made.cert);
        TlsConfig { cert, key: self.file("k.pem", &made.key), client_ca: None }
    }
}

/// A certificate and its key, both in PEM.
struct Made {
    cert: String,
    key: String,
}

/// A certificate that is good from one year to another.
fn made_for(begin: i32, end: i32) -> Made {
    let mut params = CertificateParams::new(["localhost".to_owned()]).unwrap();
    params.not_before = rcgen::date_time_ymd(begin, 1, 1);
    params.not_after = rcgen::date_time_ymd(end, 1, 1);
    let key = KeyPair::generate().unwrap();
    Made { cert: params.self_signed(&key).unwrap().pem(), key: key.serialize_pem() }
}

fn made() -> Made {
    made_for(2020, 2100)
}

fn authority() -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

fn tls(loaded: Loaded, clock: SharedClock) -> Tls {
    Tls::new(&LISTENER, loaded, clock, Handshakes::start().unwrap())
}

#[test]
fn what_is_wrong_with_a_file_is_said_by_setting_and_file_with_what_to_do() {
    let dir = Dir::new();
    let (one, other) = (made(), made());
    let good = dir.file("good.pem", &one.cert);
    let good_key = dir.file("good.key", &one.key);
    let two_in_wrong_order = dir.file("order.pem", &[&*other.cert, &one.cert].concat());
    let half = dir.file("half.pem", &one.cert[..one.cert.len() / 2]);
    let noise = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    let noise = dir.file("noise.pem", noise);
    let encrypted = one.key.replace("PRIVATE", "ENCRYPTED PRIVATE");
    let encrypted = dir.file("encrypted.key", &encrypted);
    let nonsense = one.key.replace(&one.key[40..60], "AAAAAAAAAAAAAAAAAAAA");
    let nonsense = dir.file("nonsense.key", &nonsense);
    let other_key = dir.file("other.key", &other.key);
    let empty = dir.file("empty", "");
    let nowhere = dir.0.path().join("nowhere");
    // (certificate, key, authority of clients; setting, file and words of each mistake)
    type Case<'a> =
        (&'a PathBuf, &'a PathBuf, Option<&'a PathBuf>, &'a [(&'a str, &'a str, &'a str)]);
    let cases: &[Case<'_>] = &[
        (&good, &good_key, None, &[]),
        (&good, &good_key, Some(&good), &[]),
        (&nowhere, &good_key, None, &[("cert", "nowhere", "No such file")]),
        (&empty, &good_key, None, &[("cert", "empty", "openssl x509")]),
        (&good_key, &good_key, None, &[("cert", "good.key", "holds no certificate")]),
        (&half, &good_key, None, &[("cert", "half.pem", "is cut off")]),
        (&noise, &good_key, None, &[("cert", "noise.pem", "have it made anew")]),
        (
            &two_in_wrong_order,
            &good_key,
            None,
            &[("cert", "order.pem", "put the server's own first")],
        ),
        (&good, &good, None, &[("key", "good.pem", "holds no private key")]),
        (&good, &encrypted, None, &[("key", "encrypted.key", "openssl pkey")]),
        (&good, &nonsense, None, &[("key", "nonsense.key", "ECDSA")]),
        (&good, &other_key, None, &[("key", "other.key", "is not the key of the certificate in")]),
        (&good, &good_key, Some(&empty), &[("client_ca", "empty", "holds no certificate")]),
        (&good, &good_key, Some(&noise), &[("client_ca", "noise.pem", "cannot be used")]),
        // All at once.
        (
            &nowhere,
            &empty,
            Some(&nowhere),
            &[("cert", "nowhere", ""), ("key", "empty", ""), ("client_ca", "nowhere", "")],
        ),
    ];
    for (cert, key, client_ca, expected) in cases {
        let client_ca = client_ca.cloned();
        let files = TlsConfig { cert: (*cert).clone(), key: (*key).clone(), client_ca };
        let mistakes = Loaded::read(&LISTENER, &files).map_or_else(|mistakes| mistakes, |_| vec![]);
        let met = mistakes.len() == expected.len()
            && mistakes.iter().zip(*expected).all(|(mistake, (setting, file, words))| {
                mistake.path == format!("x.tls.{setting}")
                    && mistake.message.contains(&*dir.0.path().join(file).to_string_lossy())
                    && mistake.message.contains(words)
            });
        assert!(met, "{files:?}: {mistakes:?}");
        let secret = &one.key[60..100];
        assert!(!format!("{mistakes:?}").contains(secret), "a key is repeated");
    }
}

#[test]
fn nothing_that_is_shown_holds_a_key() {
    let dir = Dir::new();
    let made = made();
    let files = dir.pair(&made);
    let loaded = Loaded::read(&LISTENER, &files).unwrap();
    let shown = format!("{loaded:#?}");
    let tls = tls(loaded, SystemClock::shared());
    let shown = format!("{shown}{tls:?}");
    let body: Vec<&str> = made.key.lines().filter(|line| !line.starts_with('-')).collect();
    assert!(body.iter().all(|line| !shown.contains(line)), "{shown}");
    assert!(!shown.contains("PRIVATE") && shown.len() < 20_000, "{shown}");
}

/// Whether what is served was taken over since the last time.
fn changed(tls: &Tls, before: &mut Arc<ServerConfig>) -> bool {
    let now = tls.0.served.load_full();
    !Arc::ptr_eq(&std::mem::replace(before, Arc::clone(&now)), &now)
}

#[test]
fn changed_files_are_taken_up_and_a_half_written_pair_is_not() {
    let dir = Dir::new();
    let (one, other) = (made(), made());
    let files = dir.pair(&one);
    let loaded = Loaded::read(&LISTENER, &files).unwrap();
    let tls = tls(loaded, SystemClock::shared());
    let mut served = tls.0.served.load_full();
    tls.look();
    assert!(!changed(&tls, &mut served), "nothing has changed");
    dir.file("c.pem", &other.cert);
    tls.look();
    assert!(!changed(&tls, &mut served), "the key is still the old one");
    dir.file("k.pem", &other.key);
    tls.look();
    assert!(changed(&tls, &mut served));
    tls.look();
    assert!(!changed(&tls, &mut served));
    // A file that vanishes, and comes back.
    fs::remove_file(&files.key).unwrap();
    tls.look();
    assert!(!changed(&tls, &mut served));
    dir.file("k.pem", &other.key);
    tls.look();
    assert!(changed(&tls, &mut served));
}

#[test]
fn a_link_that_points_elsewhere_is_a_change() {
    let dir = Dir::new();
    let (one, other) = (made(), made());
    // As certbot has it: live/name.pem -> archive/name1.pem.
    for (number, made) in [(1, &one), (2, &other)] {
        dir.file(&format!("c{number}.pem"), &made.cert);
        dir.file(&format!("k{number}.pem"), &made.key);
    }
    let point_to = |number: u8| {
        for name in ["c", "k"] {
            let link = dir.0.path().join(format!("{name}.pem"));
            let fresh = dir.0.path().join("fresh");
            std::os::unix::fs::symlink(format!("{name}{number}.pem"), &fresh).unwrap();
            fs::rename(fresh, link).unwrap();
        }
    };
    point_to(1);
    let (cert, key) = (dir.0.path().join("c.pem"), dir.0.path().join("k.pem"));
    let files = TlsConfig { cert, key, client_ca: None };
    let loaded = Loaded::read(&LISTENER, &files).unwrap();
    let tls = tls(loaded, SystemClock::shared());
    let mut served = tls.0.served.load_full();
    point_to(2);
    tls.look();
    assert!(changed(&tls, &mut served));
}

#[test]
fn a_reload_takes_other_files_and_leaves_the_same_ones_alone() {
    let dir = Dir::new();
    let one = made();
    let files = dir.pair(&one);
    let read = |files: &TlsConfig| Loaded::read(&LISTENER, files).unwrap();
    let tls = tls(read(&files), SystemClock::shared());
    let mut served = tls.0.served.load_full();
    tls.replace(read(&files));
    assert!(!changed(&tls, &mut served), "tickets would end for nothing");
    let with_authority =
        TlsConfig { client_ca: Some(dir.file("ca.pem", &authority().pem())), ..files };
    tls.replace(read(&with_authority));
    assert!(changed(&tls, &mut served));
    // From now on these are the ones that are looked at.
    dir.file("ca.pem", &authority().pem());
    tls.look();
    assert!(changed(&tls, &mut served));
}

/// A clock that is set by hand, in days since 2020-01-01.
#[derive(Debug)]
struct Days(std::sync::atomic::AtomicU64);

impl Clock for Days {
    fn now(&self) -> Now {
        let days = self.0.load(std::sync::atomic::Ordering::Relaxed);
        let since = Duration::from_secs(days * 86_400);
        Now {
            wall: SystemTime::UNIX_EPOCH + Duration::from_secs(1_577_836_800) + since,
            mono: since,
        }
    }
}

#[test]
fn the_life_of_a_certificate_is_told_when_it_changes() {
    let dir = Dir::new();
    // 366 days.
    let files = dir.pair(&made_for(2020, 2021));
    let loaded = Loaded::read(&LISTENER, &files).unwrap();
    let clock = Arc::new(Days(0.into()));
    let tls = tls(loaded, clock.clone());
    let told = |day: u64| {
        clock.0.store(day, std::sync::atomic::Ordering::Relaxed);
        tls.look();
        tls.files().told
    };
    assert_eq!(
        [0, 358, 359, 365, 366].map(told),
        [Life::Good, Life::Good, Life::Ending, Life::Ending, Life::Ended]
    );
    dir.pair(&made_for(2020, 2030));
    assert_eq!(told(367), Life::Good);
    let life = |begin, end| {
        let loaded = Loaded::read(&LISTENER, &dir.pair(&made_for(begin, end))).unwrap();
        loaded.told(clock.now().wall)
    };
    assert!(life(2020, 2030).starts_with("is good until 2030-01-01"));
    assert!(life(2019, 2020).contains("has expired"));
    assert!(life(2022, 2023).contains("is not good before 2022-01-01 00:00:00 UTC"));
}
