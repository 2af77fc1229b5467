//! The store on a real disk: what it keeps, what it survives.

mod looking;
mod sealing;

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

/// Opens the store without a key.
fn begin(dir: &Path, patience: Duration) -> Result<(TokenStore, Restored, Closing), Refused> {
    open(dir, Keys::default(), patience, &SystemClock::shared())
}

/// Opens, does something, and closes.
async fn with<T>(dir: &Path, run: impl AsyncFnOnce(&TokenStore) -> T) -> (Restored, T) {
    let (store, restored, closing) = begin(dir, Duration::ZERO).unwrap();
    let outcome = run(&store).await;
    drop(store);
    closing.wait();
    (restored, outcome)
}

/// Opens the database as it is.
fn database_in(dir: &Path, keys: &Keys) -> Database {
    database::examine(dir).unwrap().settle(0, keys, Wanted::Nothing).unwrap()
}

/// Writes bytes as the store would: whole, whatever they are.
fn write(dir: &Path, entries: &[(&str, &[u8])]) {
    let mut database = database_in(dir, &Keys::default());
    let changes: Vec<Change> = entries
        .iter()
        .map(|(key, bytes)| (key.as_bytes().to_vec(), Some(bytes.to_vec())))
        .collect();
    database.write(&changes.iter().collect::<Vec<_>>()).unwrap();
}

async fn contents(dir: &Path) -> Restored {
    with(dir, async |_| ()).await.0
}

/// Puts until the disk takes it: after a refusal it is left alone for a moment.
async fn put_when_taken(store: &TokenStore, record: &TokenRecord) {
    while store.put(&name("a"), record).await.is_err() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// How many damaged databases are kept.
fn aside(dir: &Path) -> usize {
    let names = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name());
    names.filter(|name| name.to_str().unwrap().contains(".corrupt-")).count()
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
    write(dir.path(), &[("b", b"garbage")]);
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
    let (store, _, closing) = begin(dir.path(), Duration::ZERO).unwrap();
    let locked = begin(dir.path(), Duration::from_millis(120)).unwrap_err();
    assert!(locked.to_string().contains(&dir.path().display().to_string()));
    let path = dir.path().to_owned();
    let waiting = std::thread::spawn(move || begin(&path, Duration::from_secs(60)).is_ok());
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
        assert_eq!(aside(dir.path()), 1);
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
    let misnamed = format::encode(&record("v"), &name("no"), &Keys::default()).unwrap();
    write(dir.path(), &[("b", b"garbage"), ("no/name", &misnamed)]);
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
        put_when_taken(store, &record("v")).await;
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
    let secret = |place: &Path, fresh| request_secret(place, &Secret::new(fresh)).unwrap();
    assert_eq!(secret(&place, "first"), Secret::new("first"));
    assert_eq!(secret(&place, "second"), Secret::new("first"));
    assert_eq!(mode(&secret_path(&place)), 0o600);
    fs::write(secret_path(&place), "\n").unwrap();
    assert_eq!(secret(&place, "third"), Secret::new("third"));
}

#[test]
fn what_somebody_has_put_into_the_secrets_file_is_a_key_or_refused() {
    let dir = tempfile::tempdir().unwrap();
    let file = secret_path(dir.path());
    for (written, key) in [
        (&b"a key\n"[..], Some("a key")),
        (b" \ta key\r\n\n", Some("a key")),
        (b"\xef\xbb\xbfa key\r\n", Some("a key")),
        (b"", None),
        (b"\xef\xbb\xbf\r\n", None),
    ] {
        fs::write(&file, written).unwrap();
        let kept = kept_secret(dir.path()).unwrap();
        assert_eq!(kept, key.map(Secret::new), "{}", written.escape_ascii());
    }
    for written in [&b"hunter2\nhunter3\n"[..], b"hunter2\thunter3", b"hunter2\0", b"hunter2\xff"] {
        fs::write(&file, written).unwrap();
        for refused in [
            kept_secret(dir.path()).map(|_| ()),
            request_secret(dir.path(), &Secret::new("fresh")).map(|_| ()),
        ] {
            let error = refused.unwrap_err();
            assert_eq!(error.kind(), std::io::ErrorKind::InvalidData);
            assert!(!error.to_string().contains("hunter"), "{error}");
        }
        assert_eq!(fs::read(&file).unwrap(), written, "it is left as it is");
    }
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

#[tokio::test]
async fn what_is_deleted_while_in_use_is_written_again() {
    let whole = |dir: &Path| fs::remove_dir_all(dir).unwrap();
    let database = |dir: &Path| fs::remove_dir_all(dir.join(DATABASE)).unwrap();
    let data = |dir: &Path| fs::remove_file(dir.join(DATABASE).join("db")).unwrap();
    let mark = |dir: &Path| fs::remove_file(dir.join(directory::MARK_FILE)).unwrap();
    let lock = |dir: &Path| fs::remove_file(dir.join("lock")).unwrap();
    let other = |dir: &Path| {
        fs::rename(dir.join(DATABASE), dir.join("elsewhere")).unwrap();
        fs::create_dir(dir.join(DATABASE)).unwrap();
        fs::write(dir.join(DATABASE).join("db"), "another's").unwrap();
    };
    let ways: [&dyn Fn(&Path); 6] = [&whole, &database, &data, &mark, &lock, &other];
    for (way, delete) in ways.into_iter().enumerate() {
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().join("store");
        with(&place, async |store| {
            store.put(&name("a"), &record("first")).await.unwrap();
            store.put(&name("b"), &record("other")).await.unwrap();
            delete(&place);
            // Any write finds out; what nobody writes again is there as well.
            store.put(&name("a"), &record("second")).await.unwrap();
            let locked = begin(&place, Duration::ZERO);
            assert!(locked.is_err(), "way {way}: it is still held");
        })
        .await;
        let mut records = contents(&place).await.records;
        records.sort_by(|a, b| a.0.cmp(&b.0));
        assert_eq!(records, [(name("a"), record("second")), (name("b"), record("other"))], "{way}");
        assert_eq!(mode(&place), 0o700);
    }
}

#[tokio::test]
async fn a_deletion_is_noticed_without_a_write() {
    let dir = tempfile::tempdir().unwrap();
    let place = dir.path().join("store");
    with(&place, async |store| {
        store.put(&name("a"), &record("v")).await.unwrap();
        fs::remove_dir_all(&place).unwrap();
        store.look().await;
    })
    .await;
    assert_eq!(contents(&place).await.records, [(name("a"), record("v"))]);
}

#[tokio::test]
async fn who_takes_the_place_of_a_deleted_directory_has_it() {
    let dir = tempfile::tempdir().unwrap();
    let place = dir.path().join("store");
    with(&place, async |ours| {
        ours.put(&name("a"), &record("ours")).await.unwrap();
        fs::remove_dir_all(&place).unwrap();
        with(&place, async |theirs| {
            theirs.put(&name("a"), &record("theirs")).await.unwrap();
            let refused = ours.put(&name("a"), &record("ours again")).await.unwrap_err();
            assert!(refused.to_string().contains("another process"), "{refused}");
        })
        .await;
        // It has left.
        put_when_taken(ours, &record("ours at last")).await;
    })
    .await;
    assert_eq!(contents(&place).await.records, [(name("a"), record("ours at last"))]);
}

#[tokio::test]
async fn an_older_database_is_found_out() {
    let dir = tempfile::tempdir().unwrap();
    let (place, copy) = (dir.path().join("store"), dir.path().join("copy"));
    let copy_to = |from: &Path, to: &Path| {
        let copied = std::process::Command::new("cp").arg("-r").args([from, to]).status();
        assert!(copied.unwrap().success());
    };
    with(&place, async |store| {
        store.put(&name("a"), &record("first")).await.unwrap();
        store.put(&name("b"), &record("only")).await.unwrap();
    })
    .await;
    copy_to(&place.join(DATABASE), &copy);
    with(&place, async |store| store.put(&name("a"), &record("second")).await.unwrap()).await;
    fs::remove_dir_all(place.join(DATABASE)).unwrap();
    copy_to(&copy, &place.join(DATABASE));
    // What has not changed since is whole.
    assert_eq!(contents(&place).await.records, [(name("b"), record("only"))]);
    // It is in the fresh database as well, and the old one is kept aside.
    assert_eq!(contents(&place).await.records, [(name("b"), record("only"))]);
    assert_eq!(aside(&place), 1);
}

#[tokio::test]
async fn a_database_of_before_there_were_proofs_is_taken_over() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(DATABASE);
    let database = sled::open(&path).unwrap();
    database.insert(b"\0wechat-token-server", b"1").unwrap();
    let bytes = format::encode(&record("v"), &name("a"), &Keys::default()).unwrap();
    database.insert("a", bytes).unwrap();
    database.insert("b", b"garbage").unwrap();
    drop(database);
    assert_eq!(contents(dir.path()).await.records, [(name("a"), record("v"))]);
    assert!(dir.path().join(directory::MARK_FILE).exists());
    assert_eq!(contents(dir.path()).await.records, [(name("a"), record("v"))]);
    assert_eq!(aside(dir.path()), 0);
}

#[tokio::test]
async fn a_lost_mark_costs_nothing_and_two_of_them_everything() {
    let dir = tempfile::tempdir().unwrap();
    let marks = [dir.path().join(directory::MARK_FILE), dir.path().join(DATABASE).join("mark")];
    with(dir.path(), async |store| store.put(&name("a"), &record("v")).await.unwrap()).await;
    for mark in &marks {
        fs::remove_file(mark).unwrap();
        assert_eq!(contents(dir.path()).await.records.len(), 1);
        fs::write(mark, "torn").unwrap();
        assert_eq!(contents(dir.path()).await.records.len(), 1);
    }
    marks.iter().for_each(|mark| fs::remove_file(mark).unwrap());
    // It looks whole, but nothing says that it is the latest.
    assert_eq!(contents(dir.path()).await.records.len(), 0);
    assert_eq!(aside(dir.path()), 1);
}

#[tokio::test]
async fn a_replacement_that_was_cut_short_is_ended() {
    let dir = tempfile::tempdir().unwrap();
    with(dir.path(), async |store| store.put(&name("a"), &record("v")).await.unwrap()).await;
    let (path, fresh) = (dir.path().join(DATABASE), dir.path().join(directory::FRESH));
    // Between the two renames: the fresh one is complete, and there is no other.
    fs::rename(&path, &fresh).unwrap();
    assert_eq!(contents(dir.path()).await.records.len(), 1);
    assert!(path.exists() && !fresh.exists());
    // Before it was complete.
    fs::create_dir(&fresh).unwrap();
    fs::write(fresh.join("db"), "half").unwrap();
    assert_eq!(contents(dir.path()).await.records.len(), 1);
    assert!(path.exists() && !fresh.exists());
}

#[tokio::test]
async fn a_replacement_is_ended_also_where_the_folder_was_made_again() {
    let dir = tempfile::tempdir().unwrap();
    with(dir.path(), async |store| store.put(&name("a"), &record("v")).await.unwrap()).await;
    fs::rename(dir.path().join(DATABASE), dir.path().join(directory::FRESH)).unwrap();
    // A directory with other files that others may read: the database's own folder is made at once.
    fs::write(dir.path().join("somebody's"), "").unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    assert_eq!(contents(dir.path()).await.records, [(name("a"), record("v"))]);
}

#[tokio::test]
async fn what_a_replacement_moved_away_is_better_than_nothing() {
    let dir = tempfile::tempdir().unwrap();
    with(dir.path(), async |store| store.put(&name("a"), &record("v")).await.unwrap()).await;
    fs::rename(dir.path().join(DATABASE), dir.path().join(directory::OLD)).unwrap();
    assert_eq!(contents(dir.path()).await.records, [(name("a"), record("v"))]);
    assert_eq!(aside(dir.path()), 0);
}

#[tokio::test]
async fn half_a_summary_of_the_log_is_no_damage() {
    let dir = tempfile::tempdir().unwrap();
    with(dir.path(), async |store| store.put(&name("a"), &record("v")).await.unwrap()).await;
    // What sled was writing when the process was killed, which sorts behind every complete one.
    let half = dir.path().join(DATABASE).join("snap.FFFFFFFFFFFFFFFF.generating");
    fs::write(&half, "half").unwrap();
    assert_eq!(contents(dir.path()).await.records, [(name("a"), record("v"))]);
    assert_eq!((aside(dir.path()), half.exists()), (0, false));
}

#[tokio::test]
async fn damaged_databases_do_not_fill_the_disk() {
    let dir = tempfile::tempdir().unwrap();
    for _ in 0..6 {
        with(dir.path(), async |store| store.put(&name("a"), &record("v")).await.unwrap()).await;
        fs::write(dir.path().join(DATABASE).join("db"), "garbage").unwrap();
    }
    contents(dir.path()).await;
    assert_eq!(aside(dir.path()), 3);
}

#[tokio::test]
async fn a_loss_while_in_use_is_told_once() {
    let dir = tempfile::tempdir().unwrap();
    with(dir.path(), async |store| store.put(&name("a"), &record("v")).await.unwrap()).await;
    let mut disk = Disk::new(dir.path(), Arc::default(), &SystemClock::shared());
    assert!(disk.open(&mut Restored::default()).is_ok());
    assert!(!disk.gave_up);
    // As after a refused write; meanwhile the file is damaged.
    disk.database = None;
    fs::write(dir.path().join(DATABASE).join("db"), "garbage").unwrap();
    disk.opened().unwrap();
    assert!(disk.gave_up);
}

#[tokio::test]
async fn what_is_missing_is_put_again_and_nothing_older_over_a_record() {
    let dir = tempfile::tempdir().unwrap();
    with(dir.path(), async |store| {
        assert!(!store.look().await, "nothing is lost");
        let (new, old) = (record("new"), record("v"));
        let (source, other) = (name("a"), name("b"));
        // In one batch, and after it.
        let (put, late) = tokio::join!(store.put(&source, &new), store.put_missing(&source, &old));
        assert_eq!((put, late), (Ok(()), Ok(())));
        store.put_missing(&other, &old).await.unwrap();
        store.put_missing(&source, &old).await.unwrap();
    })
    .await;
    let mut records = contents(dir.path()).await.records;
    records.sort_by(|a, b| a.0.cmp(&b.0));
    assert_eq!(records, [(name("a"), record("new")), (name("b"), record("v"))]);
}
