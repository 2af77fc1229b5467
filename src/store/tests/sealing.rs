//! Records under the operator's key: which keys open what, what the files hold afterwards, and what a
//! crash in the middle leaves.

use super::super::rewrite::{self, Places, SWAP};
use super::super::{Unopened, custody::Wanted};
use super::*;

const K1: &str = "first-key-0123456789";
const K2: &str = "second-key-0123456789";
const K3: &str = "third-key-0123456789";

/// What is searched for in files. Long, so that no file holds it by chance.
const TOKEN: &str = "57_canary-of-a-token";
const CAPTURED: &str = "refresh@@@canary-of-a-captured-text";

fn keys(current: Option<&str>, old: &[&str]) -> Keys {
    let old: Vec<Secret> = old.iter().map(|text| Secret::new(*text)).collect();
    Keys::new(current.map(Secret::new).as_ref(), &old)
}

/// A record whose value begins with [`TOKEN`].
fn secret_record(n: usize) -> TokenRecord {
    let captured = Some(Secret::new(format!("{CAPTURED}{n}")));
    TokenRecord { captured, ..record(&format!("{TOKEN}{n}")) }
}

async fn with_keys<T>(
    dir: &Path,
    keys: Keys,
    run: impl AsyncFnOnce(&TokenStore) -> T,
) -> Result<(Restored, T), Refused> {
    let (store, restored, closing) = open(dir, keys, Duration::ZERO, &SystemClock::shared())?;
    let outcome = run(&store).await;
    drop(store);
    closing.wait();
    Ok((restored, outcome))
}

/// What a start with these keys restores.
async fn records(dir: &Path, keys: Keys) -> Result<Vec<(SourceName, TokenRecord)>, Refused> {
    let (restored, ()) = with_keys(dir, keys, async |_| ()).await?;
    assert_eq!(restored.memory_only, None);
    Ok(restored.records)
}

/// Writes records, over each other and side by side, and what is no record; returns what is there then.
async fn fill(dir: &Path, keys: Keys) -> Vec<(SourceName, TokenRecord)> {
    let account = Account { name: "wx0".into(), endpoint: "/cgi-bin/token".into() };
    let calls = Calls { made: 7, ..Calls::default() };
    let mark = Unsettled { first: SystemTime::UNIX_EPOCH, last: SystemTime::UNIX_EPOCH };
    with_keys(dir, keys, async |store| {
        for n in 0..20 {
            store.put(&name("a"), &secret_record(n)).await.unwrap();
        }
        store.put(&name("b"), &secret_record(20)).await.unwrap();
        store.put_calls(&account, calls).await.unwrap();
        store.put_mark(&name("a"), Some(mark)).await.unwrap();
    })
    .await
    .unwrap();
    vec![(name("a"), secret_record(19)), (name("b"), secret_record(20))]
}

/// Every file below `dir`.
fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found
}

/// The files below `dir` that hold any of a token, a captured text or a key.
fn exposed(dir: &Path) -> Vec<PathBuf> {
    let mut found = files(dir);
    found.retain(|path| {
        let bytes = fs::read(path).unwrap();
        [TOKEN, CAPTURED, K1, K2, K3]
            .iter()
            .any(|text| bytes.windows(text.len()).any(|part| part == text.as_bytes()))
    });
    found
}

/// Names the directory of the database: another one if it was written anew.
fn database(dir: &Path) -> u64 {
    std::os::unix::fs::MetadataExt::ino(&fs::metadata(dir.join(DATABASE)).unwrap())
}

#[tokio::test]
async fn whatever_records_were_kept_under_they_are_kept_as_the_config_says() {
    // (kept under, the config's key, its old keys, whether it starts)
    for (before, current, old, starts) in [
        (None, None, &[][..], true),
        (None, Some(K1), &[], true),
        (None, Some(K2), &[K1], true),
        (Some(K1), Some(K1), &[], true),
        (Some(K1), Some(K1), &[K2], true),
        (Some(K1), Some(K2), &[K1], true),
        (Some(K1), Some(K3), &[K2, K1], true),
        (Some(K1), None, &[K1], true),
        (Some(K1), None, &[], false),
        (Some(K1), None, &[K2], false),
        (Some(K1), Some(K2), &[], false),
        (Some(K1), Some(K2), &[K3], false),
    ] {
        let what = format!("{before:?} with {current:?} and {old:?}");
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        let written = fill(dir, keys(before, &[])).await;
        assert_eq!(exposed(dir).is_empty(), before.is_some(), "{what}: {:?}", exposed(dir));
        let place = database(dir);
        if !starts {
            let refused = records(dir, keys(current, old)).await.unwrap_err().to_string();
            let id = keys(before, &[]).current_id().unwrap().to_string();
            for part in [&id, "2 record(s)", "store.key", "store.old_keys", "nothing was changed"] {
                assert!(refused.contains(part), "{what}: {refused}");
            }
            // Nothing is lost: with the right key everything is there.
            assert_eq!(records(dir, keys(before, &[])).await.unwrap(), written, "{what}");
            continue;
        }
        let (restored, ()) = with_keys(dir, keys(current, old), async |_| ()).await.unwrap();
        assert_eq!(restored.records, written, "{what}");
        assert_eq!((restored.calls.len(), restored.marks.len()), (1, 1), "{what}");
        assert_eq!(exposed(dir).is_empty(), current.is_some(), "{what}: {:?}", exposed(dir));
        assert_eq!(database(dir) == place, before == current, "{what}: written anew if need be");
        // The old keys are not needed any more, and nothing is written anew for nothing.
        let place = database(dir);
        let (restored, ()) = with_keys(dir, keys(current, &[]), async |store| {
            store.put(&name("a"), &secret_record(99)).await.unwrap();
        })
        .await
        .unwrap();
        assert_eq!(restored.records, written, "{what}");
        assert_eq!((restored.calls.len(), restored.marks.len()), (1, 1), "{what}");
        let read = records(dir, keys(current, &[])).await.unwrap();
        assert_eq!(read[0], (name("a"), secret_record(99)), "{what}");
        assert_eq!(exposed(dir).is_empty(), current.is_some(), "{what}: {:?}", exposed(dir));
        assert_eq!(database(dir), place, "{what}");
    }
}

#[tokio::test]
async fn some_records_under_an_unknown_key_are_enough_to_refuse() {
    let dir = tempfile::tempdir().unwrap();
    fill(dir.path(), keys(Some(K1), &[])).await;
    let foreign = format::encode(&secret_record(1), &name("c"), &keys(Some(K2), &[])).unwrap();
    let tree = sled::open(dir.path().join(DATABASE)).unwrap();
    tree.insert("c", foreign).unwrap();
    tree.flush().unwrap();
    drop(tree);
    let refused = records(dir.path(), keys(Some(K1), &[])).await.unwrap_err();
    assert!(refused.to_string().contains("1 record(s)"), "{refused}");
    assert_eq!(records(dir.path(), keys(Some(K1), &[K2])).await.unwrap().len(), 3);
    assert_eq!(records(dir.path(), keys(Some(K1), &[])).await.unwrap().len(), 3);
}

#[tokio::test]
async fn a_broken_seal_is_a_broken_record_and_no_wrong_key() {
    let dir = tempfile::tempdir().unwrap();
    fill(dir.path(), keys(Some(K1), &[])).await;
    let tree = sled::open(dir.path().join(DATABASE)).unwrap();
    // A whole record of another source.
    let moved = tree.get("a").unwrap().unwrap();
    tree.insert("b", moved).unwrap();
    tree.insert("c", b"garbage").unwrap();
    tree.flush().unwrap();
    drop(tree);
    let read = records(dir.path(), keys(Some(K1), &[])).await.unwrap();
    assert_eq!(read, [(name("a"), secret_record(19))]);
}

#[tokio::test]
async fn a_store_that_has_never_held_a_record_may_change_its_mind() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    for current in [Some(K1), None, Some(K2), None] {
        assert_eq!(records(dir, keys(current, &[])).await.unwrap(), []);
    }
    // From the first record on its files are what the database says they are.
    fill(dir, Keys::default()).await;
    assert!(!exposed(dir).is_empty());
    assert_eq!(records(dir, keys(Some(K1), &[])).await.unwrap().len(), 2);
    assert_eq!(exposed(dir), [] as [PathBuf; 0]);
}

#[tokio::test]
async fn plain_records_that_were_overwritten_by_sealed_ones_are_taken_off_the_disk_too() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    fill(dir, Keys::default()).await;
    // As where the disk refuses to have the database written anew: it is written on.
    let mut disk = Disk {
        dir: dir.to_owned(),
        keys: Arc::new(keys(Some(K1), &[])),
        rewrites: false,
        clock: SystemClock::shared(),
        database: None,
        lock: None,
    };
    assert_eq!(disk.open().map_err(|_| ()).unwrap().records.len(), 2);
    for source in ["a", "b"] {
        let sealed = format::encode(&secret_record(50), &name(source), &disk.keys).unwrap();
        let change = (source.as_bytes().to_vec(), Some(sealed));
        apply(disk.database.as_ref().unwrap(), [&change]).unwrap();
    }
    drop(disk);
    assert!(!exposed(dir).is_empty(), "no record is plain, the files are");
    let read = records(dir, keys(Some(K1), &[])).await.unwrap();
    assert_eq!(read.iter().map(|(_, record)| record).collect::<Vec<_>>(), [&secret_record(50); 2]);
    assert_eq!(exposed(dir), [] as [PathBuf; 0]);
}

#[tokio::test]
async fn a_crash_at_any_step_of_the_swap_loses_nothing() {
    for done in 0..=SWAP.len() {
        for half_removed in [false, true] {
            let dir = tempfile::tempdir().unwrap();
            let dir = dir.path();
            let written = fill(dir, keys(Some(K1), &[])).await;
            let new_keys = keys(Some(K2), &[K1]);
            let at = Places::of(dir);
            let old = open_database(&at.database).map_err(|_| ()).unwrap();
            let (restored, _) = custody::read(&old, &new_keys).unwrap();
            rewrite::build(&at, &old, &restored, &new_keys).unwrap();
            drop(old);
            SWAP[..done].iter().for_each(|step| step(&at).unwrap());
            if half_removed {
                // Removed in any order, as a removal that was cut short leaves it.
                if at.replaced.exists() && at.database.exists() {
                    fs::remove_file(at.replaced.join("db")).unwrap();
                } else if at.fresh.exists() && at.database.exists() {
                    fs::write(at.fresh.join("db"), "half a database").unwrap();
                } else {
                    continue;
                }
            }
            let what = format!("{done} steps, half removed: {half_removed}");
            assert_eq!(records(dir, keys(Some(K2), &[K1])).await.unwrap(), written, "{what}");
            assert_eq!(records(dir, keys(Some(K2), &[])).await.unwrap(), written, "{what}");
            assert!(!at.fresh.exists() && !at.replaced.exists(), "{what}");
        }
    }
}

#[tokio::test]
async fn a_disk_that_does_not_give_back_what_was_written_leaves_the_old_database_in_place() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let written = fill(dir, Keys::default()).await;
    let sealed = keys(Some(K1), &[]);
    let old = open_database(&dir.join(DATABASE)).map_err(|_| ()).unwrap();
    let (mut restored, _) = custody::read(&old, &sealed).unwrap();
    // Half a millisecond is not kept: what is read back differs.
    restored.records[0].1.fetched_at += Duration::from_micros(500);
    let error = rewrite::rewrite(dir, old, &restored, &sealed).unwrap_err();
    assert!(error.to_string().contains("does not give back"), "{error}");
    assert_eq!(records(dir, Keys::default()).await.unwrap(), written);
    assert!(!Places::of(dir).fresh.exists());
}

#[tokio::test]
async fn a_disk_that_refuses_a_rewrite_is_asked_once_and_what_it_holds_is_served() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let written = fill(dir, Keys::default()).await;
    let mut disk = Disk {
        dir: dir.to_owned(),
        keys: Arc::new(keys(Some(K1), &[])),
        rewrites: true,
        clock: SystemClock::shared(),
        database: None,
        lock: None,
    };
    let database = open_database(&dir.join(DATABASE)).map_err(|_| ()).unwrap();
    let (mut restored, custody) = custody::read(&database, &disk.keys).unwrap();
    restored.records[0].1.fetched_at += Duration::from_micros(500);
    let wanted = custody.wanted(&disk.keys);
    assert_eq!(wanted, Wanted::Rewrite { outdated: 2 });
    let database = rewrite::keep_as(wanted, &mut disk, database, &restored).unwrap();
    let (again, _) = custody::read(&database, &disk.keys).unwrap();
    assert_eq!((again.records, disk.rewrites), (written, false));
}

#[tokio::test]
async fn a_database_that_is_replaced_while_it_runs_is_not_written_under_another_key() {
    let dir = tempfile::tempdir().unwrap();
    fill(dir.path(), keys(Some(K1), &[])).await;
    let mut disk = Disk {
        dir: dir.path().to_owned(),
        keys: Arc::new(keys(Some(K2), &[])),
        rewrites: true,
        clock: SystemClock::shared(),
        database: None,
        lock: None,
    };
    assert!(matches!(disk.open(), Err(Unopened::WrongKey(wrong)) if wrong.records == 2));
    let error = disk.opened().err().unwrap().to_string();
    assert!(error.contains("store.old_keys"), "{error}");
}
