//! Records under the operator's key: which keys open what, what the files hold afterwards, and what a
//! crash in the middle leaves.

use super::super::custody::{SEALED_BY, kept_as};
use super::super::directory::{FRESH, OLD};
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

/// Writes a change as the store would: whole, whatever it is.
fn write(dir: &Path, keys: &Keys, key: &str, bytes: Vec<u8>) {
    let change = (key.as_bytes().to_vec(), Some(bytes));
    database_in(dir, keys).write(&[&change]).unwrap();
}

/// The names in a directory, and the bytes of what must not change without a key.
fn untouched(dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = files(dir);
    // sled's own summary of its log, which it may write when it opens a database.
    found.retain(|path| !path.to_string_lossy().contains("/snap."));
    found.sort();
    found.into_iter().map(|path| (path.clone(), fs::read(path).unwrap())).collect()
}

#[tokio::test]
async fn some_records_under_an_unknown_key_are_enough_to_refuse() {
    let dir = tempfile::tempdir().unwrap();
    fill(dir.path(), keys(Some(K1), &[])).await;
    let foreign = format::encode(&secret_record(1), &name("c"), &keys(Some(K2), &[])).unwrap();
    write(dir.path(), &keys(Some(K1), &[]), "c", foreign);
    let refused = records(dir.path(), keys(Some(K1), &[])).await.unwrap_err();
    assert!(refused.to_string().contains("1 record(s)"), "{refused}");
    assert_eq!(records(dir.path(), keys(Some(K1), &[K2])).await.unwrap().len(), 3);
    assert_eq!(records(dir.path(), keys(Some(K1), &[])).await.unwrap().len(), 3);
}

#[tokio::test]
async fn a_damaged_database_is_left_alone_without_the_key_of_what_is_whole() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    fill(dir, keys(Some(K1), &[])).await;
    // As a disk does it: past the store, so that nothing proves it.
    let tree = sled::open(dir.join(DATABASE)).unwrap();
    tree.insert("b", b"damaged").unwrap();
    tree.flush().unwrap();
    drop(tree);
    let before = untouched(dir);
    for wrong in [Keys::default(), keys(Some(K2), &[K3])] {
        let refused = records(dir, wrong).await.unwrap_err().to_string();
        assert!(refused.contains("1 record(s)"), "{refused}");
        assert_eq!(untouched(dir), before, "nothing was changed");
    }
    // With the key what is whole is kept, and what is not is moved aside.
    let read = records(dir, keys(Some(K2), &[K1])).await.unwrap();
    assert_eq!((read, aside(dir)), (vec![(name("a"), secret_record(19))], 1));
    assert_eq!(records(dir, keys(Some(K2), &[])).await.unwrap().len(), 1);
    assert_eq!(exposed(dir), [] as [PathBuf; 0]);
}

#[tokio::test]
async fn a_broken_seal_is_a_broken_record_and_no_wrong_key() {
    let dir = tempfile::tempdir().unwrap();
    let sealed = keys(Some(K1), &[]);
    fill(dir.path(), keys(Some(K1), &[])).await;
    // A whole record of another source.
    let moved = format::encode(&secret_record(19), &name("a"), &sealed).unwrap();
    write(dir.path(), &sealed, "b", moved);
    write(dir.path(), &sealed, "c", b"garbage".to_vec());
    let read = records(dir.path(), keys(Some(K1), &[])).await.unwrap();
    assert_eq!(read, [(name("a"), secret_record(19))]);
}

#[test]
fn what_is_written_anew_is_kept_under_the_current_key_or_not_at_all() {
    let (k1, k2) = (keys(Some(K1), &[]), keys(Some(K2), &[K1]));
    let sealed = format::encode(&secret_record(1), &name("a"), &k1).unwrap();
    let kept = kept_as(b"a", &sealed, &k2).unwrap().unwrap();
    let decoded = format::decode(&kept, &name("a"), &keys(Some(K2), &[])).unwrap();
    assert_eq!(decoded.record, secret_record(1));
    let as_it_is = |key: &[u8], value: &[u8], keys: &Keys| {
        kept_as(key, value, keys).unwrap().as_deref() == Some(value)
    };
    assert!(as_it_is(b"a", &sealed, &k1));
    assert!(as_it_is(b"\0anything", b"anything", &k1));
    assert!(as_it_is(b"a", &sealed, &keys(Some(K3), &[])), "it is whole, and not ours to destroy");
    for (key, value) in [(&b"a"[..], &b"garbage"[..]), (b"no/name", &sealed), (b"b", &sealed)] {
        assert_eq!(kept_as(key, value, &k2).unwrap(), None);
    }
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
    let sealed = keys(Some(K1), &[]);
    for source in ["a", "b"] {
        let bytes = format::encode(&secret_record(50), &name(source), &sealed).unwrap();
        write(dir, &sealed, source, bytes);
    }
    assert!(!exposed(dir).is_empty(), "no record is plain, the files are");
    let read = records(dir, keys(Some(K1), &[])).await.unwrap();
    assert_eq!(read.iter().map(|(_, record)| record).collect::<Vec<_>>(), [&secret_record(50); 2]);
    assert_eq!(exposed(dir), [] as [PathBuf; 0]);
}

#[tokio::test]
async fn a_crash_at_any_step_of_a_rotation_loses_nothing() {
    type Step = fn(&Path);
    // What puts the fresh database in the place of the old one, in order.
    let steps: [Step; 3] = [
        |dir| fs::rename(dir.join(DATABASE), dir.join(OLD)).unwrap(),
        |dir| fs::rename(dir.join(FRESH), dir.join(DATABASE)).unwrap(),
        |dir| fs::remove_dir_all(dir.join(OLD)).unwrap(),
    ];
    // What a removal, or a database that is being built, looks like when it is cut short.
    let cuts: [(&str, Step); 3] = [
        ("nothing", |_| ()),
        ("the replaced one is half removed", |dir| {
            let _ = fs::remove_file(dir.join(OLD).join("db"));
        }),
        ("the fresh one is half built", |dir| {
            if dir.join(DATABASE).exists() && dir.join(FRESH).exists() {
                fs::remove_file(dir.join(FRESH).join("mark")).unwrap();
                fs::write(dir.join(FRESH).join("db"), "half a database").unwrap();
            }
        }),
    ];
    for done in 0..=steps.len() {
        for (cut_short, cut) in cuts {
            if cut_short.contains("removed") && done < 2 {
                continue;
            }
            let dir = tempfile::tempdir().unwrap();
            let dir = dir.path();
            let written = fill(dir, keys(Some(K1), &[])).await;
            let new_keys = keys(Some(K2), &[K1]);
            let examined = database::examine(dir).unwrap();
            examined.build(&new_keys).unwrap();
            drop(examined);
            steps[..done].iter().for_each(|step| step(dir));
            cut(dir);
            let what = format!("{done} steps, {cut_short}");
            for current in [keys(Some(K2), &[K1]), keys(Some(K2), &[])] {
                let (restored, ()) = with_keys(dir, current, async |_| ()).await.unwrap();
                assert_eq!(restored.records, written, "{what}");
                assert_eq!((restored.calls.len(), restored.marks.len()), (1, 1), "{what}");
            }
            assert!(!dir.join(FRESH).exists() && !dir.join(OLD).exists(), "{what}");
            assert_eq!((exposed(dir), aside(dir)), (vec![], 0), "{what}");
        }
    }
}

#[tokio::test]
async fn a_database_that_is_replaced_while_it_runs_is_not_written_under_another_key() {
    let dir = tempfile::tempdir().unwrap();
    fill(dir.path(), keys(Some(K1), &[])).await;
    let mut disk = Disk::new(dir.path(), Arc::new(keys(Some(K2), &[])), &SystemClock::shared());
    let outcome = disk.open(&mut Restored::default());
    assert!(matches!(outcome, Err(Unopened::WrongKey(wrong)) if wrong.records == 2));
    let error = disk.opened().err().unwrap().to_string();
    assert!(error.contains("store.old_keys"), "{error}");
}

#[tokio::test]
async fn what_is_deleted_while_in_use_is_written_again_under_the_key() {
    let dir = tempfile::tempdir().unwrap();
    let place = dir.path().join("store");
    fill(&place, Keys::default()).await;
    with_keys(&place, keys(Some(K1), &[]), async |store| {
        fs::remove_dir_all(&place).unwrap();
        store.look().await;
    })
    .await
    .unwrap();
    let tree = sled::open(place.join(DATABASE)).unwrap();
    let id = keys(Some(K1), &[]).current_id().unwrap();
    assert_eq!(tree.get(SEALED_BY).unwrap().as_deref(), Some(id.bytes()));
    drop(tree);
    assert_eq!(records(&place, keys(Some(K1), &[])).await.unwrap().len(), 2);
    assert_eq!(exposed(&place), [] as [PathBuf; 0]);
}
