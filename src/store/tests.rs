//! The store on a real disk: what it keeps, what it survives.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::SystemTime;

use super::directory::DATABASE;
use super::*;
use crate::clock::SystemClock;
use crate::token::{Generation, Secret, SourceIdentity};

fn name(name: &str) -> SourceName {
    SourceName::parse(name).unwrap()
}

fn record(value: &str) -> TokenRecord {
    let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
    TokenRecord {
        value: Secret::new(value),
        fetched_at: at(1_800_000_000),
        expires_at: at(1_800_007_200),
        generation: Generation(5),
        first_seen: at(1_800_000_000),
        identity: SourceIdentity([1; 32]),
        captured: None,
    }
}

/// Opens, does something, and closes.
async fn with<T>(dir: &Path, run: impl AsyncFnOnce(&TokenStore) -> T) -> (Restored, T) {
    let (store, restored, closing) = open(dir, Duration::ZERO, &SystemClock::shared()).unwrap();
    let outcome = run(&store).await;
    drop(store);
    closing.wait();
    (restored, outcome)
}

async fn contents(dir: &Path) -> Restored {
    with(dir, async |_| ()).await.0
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[tokio::test]
async fn what_was_put_is_there_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let (restored, ()) = with(dir.path(), async |store| {
        store.put(&name("a"), &record("first")).await.unwrap();
        store.put(&name("公众号"), &record("other")).await.unwrap();
        store.put(&name("a"), &record("second")).await.unwrap();
    })
    .await;
    assert!(restored.records.is_empty());
    let mut records = contents(dir.path()).await.records;
    records.sort_by(|a, b| a.0.cmp(&b.0));
    assert_eq!(records, [(name("a"), record("second")), (name("公众号"), record("other"))]);
    assert_eq!(mode(dir.path()), 0o700);
}

#[tokio::test]
async fn one_record_is_read_as_it_was_last_put() {
    let dir = tempfile::tempdir().unwrap();
    with(dir.path(), async |store| {
        assert_eq!(store.get(&name("a")).await, None);
        store.put(&name("a"), &record("first")).await.unwrap();
        let (second, read) = (record("second"), name("a"));
        let (put, got) = tokio::join!(store.put(&read, &second), store.get(&read));
        assert_eq!(
            (put, got),
            (Ok(()), Some(record("second"))),
            "a read waits for writes before it"
        );
        store.put(&name("b"), &record("other")).await.unwrap();
        assert_eq!(store.get(&name("a")).await, Some(record("second")));
    })
    .await;
    let database = sled::open(dir.path().join(DATABASE)).unwrap();
    database.insert("b", b"garbage").unwrap();
    database.flush().unwrap();
    drop(database);
    with(dir.path(), async |store| {
        assert_eq!(store.get(&name("b")).await, None);
        assert_eq!(store.get(&name("a")).await, Some(record("second")));
    })
    .await;
}

#[tokio::test]
async fn a_thousand_writes_at_once_are_all_kept() {
    let dir = tempfile::tempdir().unwrap();
    with(dir.path(), async |store| {
        let writes = (0..1_000).map(|n| {
            let store = store.clone();
            tokio::spawn(async move { store.put(&name(&format!("s{n}")), &record("v")).await })
        });
        for write in writes.collect::<Vec<_>>() {
            write.await.unwrap().unwrap();
        }
    })
    .await;
    assert_eq!(contents(dir.path()).await.records.len(), 1_000);
}

#[tokio::test]
async fn a_directory_in_use_is_waited_for_and_then_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _, closing) = open(dir.path(), Duration::ZERO, &SystemClock::shared()).unwrap();
    let locked = open(dir.path(), Duration::from_millis(120), &SystemClock::shared()).unwrap_err();
    assert!(locked.to_string().contains(&dir.path().display().to_string()));
    let path = dir.path().to_owned();
    let waiting = std::thread::spawn(move || {
        open(&path, Duration::from_secs(60), &SystemClock::shared()).is_ok()
    });
    drop(store);
    closing.wait();
    assert!(waiting.join().unwrap(), "it is let in when the other one leaves");
}

#[tokio::test]
async fn a_corrupt_database_is_moved_aside() {
    for damage in [&b"garbage"[..], &[0xff; 600_000]] {
        let dir = tempfile::tempdir().unwrap();
        with(dir.path(), async |store| store.put(&name("a"), &record("v")).await.unwrap()).await;
        for file in ["conf", "db"] {
            fs::write(dir.path().join(DATABASE).join(file), damage).unwrap();
        }
        let (restored, put) =
            with(dir.path(), async |store| store.put(&name("a"), &record("new")).await).await;
        assert!(restored.records.is_empty() && restored.memory_only.is_none(), "{restored:?}");
        assert_eq!(put, Ok(()));
        let aside = fs::read_dir(dir.path()).unwrap().filter(|entry| {
            entry.as_ref().unwrap().file_name().to_str().unwrap().contains(".corrupt-")
        });
        assert_eq!(aside.count(), 1);
        assert_eq!(contents(dir.path()).await.records.len(), 1);
    }
}

#[tokio::test]
async fn a_record_takes_the_mark_of_its_request_away() {
    let dir = tempfile::tempdir().unwrap();
    // Whatever the clock says: this mark is of long before the record.
    let long_ago = SystemTime::UNIX_EPOCH + Duration::from_secs(1);
    let mark = Unsettled { first: long_ago, last: long_ago };
    with(dir.path(), async |store| {
        store.put_mark(&name("a"), Some(mark)).await.unwrap();
        store.put_mark(&name("b"), Some(mark)).await.unwrap();
        store.put(&name("a"), &record("v")).await.unwrap();
    })
    .await;
    assert_eq!(contents(dir.path()).await.marks, [(name("b"), mark)]);
}

#[tokio::test]
async fn a_broken_record_is_left_out_and_the_others_are_not() {
    let dir = tempfile::tempdir().unwrap();
    with(dir.path(), async |store| store.put(&name("a"), &record("v")).await.unwrap()).await;
    let database = sled::open(dir.path().join(DATABASE)).unwrap();
    database.insert("b", b"garbage").unwrap();
    database.insert("no/name", format::encode(&record("v"))).unwrap();
    database.flush().unwrap();
    drop(database);
    let restored = contents(dir.path()).await;
    assert_eq!(restored.records, [(name("a"), record("v"))]);
}

#[tokio::test]
async fn where_the_disk_refuses_it_says_so_and_writes_when_it_can() {
    let dir = tempfile::tempdir().unwrap();
    let place = dir.path().join("place");
    // A file where the directory should be: refused even to root.
    fs::write(&place, "").unwrap();
    let (restored, ()) = with(&place, async |store| {
        assert!(store.put(&name("a"), &record("v")).await.is_err());
        fs::remove_file(&place).unwrap();
        store.put(&name("a"), &record("v")).await.unwrap();
    })
    .await;
    let why = restored.memory_only.unwrap().to_string();
    assert!(why.contains("place"), "{why}");
    assert_eq!(contents(&place).await.records.len(), 1);
}

#[test]
fn the_request_secret_is_made_once_and_kept_for_the_owner() {
    let dir = tempfile::tempdir().unwrap();
    let place = dir.path().join("new");
    assert_eq!(request_secret(&place, "first").unwrap(), "first");
    assert_eq!(request_secret(&place, "second").unwrap(), "first");
    assert_eq!(mode(&secret_path(&place)), 0o600);
    fs::write(secret_path(&place), "\n").unwrap();
    assert_eq!(request_secret(&place, "third").unwrap(), "third");
}

#[tokio::test]
async fn a_directory_that_holds_other_files_keeps_its_mode() {
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    fs::write(dir.path().join("somebody's"), "").unwrap();
    let (_, put) = with(dir.path(), async |store| store.put(&name("a"), &record("v")).await).await;
    assert_eq!(put, Ok(()));
    contents(dir.path()).await;
    assert_eq!(mode(dir.path()), 0o755);
    assert_eq!(mode(&dir.path().join(DATABASE)), 0o700);
    // Once it is ours it is made private.
    let ours = tempfile::tempdir().unwrap();
    with(ours.path(), async |store| store.put(&name("a"), &record("v")).await.unwrap()).await;
    fs::set_permissions(ours.path(), fs::Permissions::from_mode(0o755)).unwrap();
    contents(ours.path()).await;
    assert_eq!(mode(ours.path()), 0o700);
}
