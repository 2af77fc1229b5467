//! A look at a store directory: it tells what is there, and leaves everything as it is.

use std::collections::BTreeMap;

use super::*;

/// Every file below `dir`, with what it holds and when it was changed.
fn files(dir: &Path) -> BTreeMap<PathBuf, (Vec<u8>, SystemTime)> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            let changed = fs::metadata(&path).unwrap().modified().unwrap();
            found.insert(path.clone(), (fs::read(&path).unwrap(), changed));
        }
    }
    found
}

#[tokio::test]
async fn a_look_shows_the_records_and_changes_no_file() {
    let dir = tempfile::tempdir().unwrap();
    let store = dir.path().join("store");
    let keys = Keys::default();
    assert!(matches!(peek(&store, &keys), Peek::Empty) && !store.exists());
    let calls = Calls { day: 20_000, made: 7, ..Calls::default() };
    let account = Account { name: "wx".into(), endpoint: "/t".into() };
    with(&store, async |store| {
        store.put(&name("a"), &record("v")).await.unwrap();
        store.put_calls(&account, calls).await.unwrap();
    })
    .await;
    let before = files(&store);
    for _ in 0..2 {
        let Peek::Holds { restored, damage: None } = peek(&store, &keys) else { panic!("nothing") };
        assert_eq!(restored.records, [(name("a"), record("v"))]);
        assert_eq!(restored.calls, [(account.clone(), calls)]);
    }
    assert_eq!(files(&store), before);

    // Without its proof nothing of it is believed, and nothing is moved aside.
    fs::remove_file(store.join("tokens.mark")).unwrap();
    let inner: Vec<_> = files(&store).into_keys().filter(|path| path.ends_with("mark")).collect();
    inner.iter().for_each(|path| fs::remove_file(path).unwrap());
    let before = files(&store);
    let Peek::Holds { restored, damage: Some(_) } = peek(&store, &keys) else { panic!("whole") };
    assert!(restored.records.is_empty());
    assert_eq!(files(&store), before);
}

#[tokio::test]
async fn a_store_in_use_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _, closing) = begin(dir.path(), Duration::ZERO).unwrap();
    assert!(matches!(peek(dir.path(), &Keys::default()), Peek::Locked));
    drop(store);
    closing.wait();
    assert!(matches!(peek(dir.path(), &Keys::default()), Peek::Holds { .. }));
}

#[tokio::test]
async fn sealed_records_are_not_shown_to_another_key() {
    let dir = tempfile::tempdir().unwrap();
    let keys = |key: &str| Keys::new(Some(&Secret::new(key)), &[]);
    let ours = keys("0123456789abcdef0123456789abcdef");
    let (store, _, closing) =
        open(dir.path(), ours, Duration::ZERO, &SystemClock::shared()).unwrap();
    store.put(&name("a"), &record("v")).await.unwrap();
    drop(store);
    closing.wait();
    let another = keys("fedcba9876543210fedcba9876543210");
    assert!(matches!(peek(dir.path(), &another), Peek::WrongKey(_)));
    assert!(matches!(peek(dir.path(), &Keys::default()), Peek::WrongKey(_)));
}

#[test]
fn what_is_no_directory_cannot_be_read() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, "").unwrap();
    for path in [file.clone(), file.join("store")] {
        assert!(matches!(peek(&path, &Keys::default()), Peek::Unreadable(_)), "{path:?}");
    }
}
