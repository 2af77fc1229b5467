//! The directory that tokens are kept in, with its disk; and the files in which secrets stand. Only looks: nothing
//! is written, not even to try whether it could be.

use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{Access, StatVfsMountFlags, access, statvfs};

use super::finding::{Finding, Topic, Words, words};
use super::ports::{self, Owner};
use crate::config::{self, Config};
use crate::store;

/// How much space a store wants: a database of many sources, and beside it a fresh one that replaces it.
const ENOUGH: u64 = 64 * MIB;
/// With how much less the next writes may fail: sled takes half a megabyte at a time, and two databases are there
/// while one replaces the other.
const TOO_LITTLE: u64 = 8 * MIB;
const MIB: u64 = 1024 * 1024;

/// What was seen of the store's directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Directory {
    path: PathBuf,
    state: State,
    /// Bytes that are left on its disk; `None` where that is not told.
    space: Option<u64>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    /// It is not there, and is made at the first start; or cannot be, in the system's words.
    Missing(Result<(), String>),
    /// It is there.
    Present {
        /// Its permissions.
        mode: u32,
        /// Whether this process may write there; else why not.
        writable: Result<(), String>,
        /// Files in it that others may read, with the command to run.
        exposed: Vec<String>,
        /// Its owner, where this process is root and the owner is not.
        owner: Option<u32>,
    },
    /// It belongs to another user, and what this one may do there says nothing of the server.
    Strange,
    /// It is no directory, or cannot be looked at; in the system's words.
    Unusable(String),
}

/// Looks at the store's directory.
pub(super) fn observe(path: &Path, request_secret: &Path) -> Directory {
    let state = match fs::metadata(path) {
        Ok(found) if found.is_dir() => match writable(path) {
            Err(_) if is_strange(path) => State::Strange,
            writable => State::Present {
                mode: found.permissions().mode() & 0o777,
                writable,
                exposed: config::closing_command(request_secret).into_iter().collect(),
                owner: (user() == Some(0) && found.uid() != 0).then_some(found.uid()),
            },
        },
        Ok(_) => State::Unusable("it is no directory".into()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            State::Missing(writable(existing(path)))
        }
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied && is_strange(path) => {
            State::Strange
        }
        Err(error) => State::Unusable(error.to_string()),
    };
    let space =
        statvfs(existing(path)).ok().map(|disk| disk.f_bavail.saturating_mul(disk.f_frsize));
    Directory { path: path.to_owned(), state, space }
}

/// The process that holds a store's directory, as far as that is known.
pub(super) fn lock_holder(dir: &Path) -> Option<Owner> {
    let lock = store::lock_path(dir).canonicalize().ok()?;
    // Another may have the file open, and wait for its turn.
    let (found, table) = (fs::metadata(&lock).ok()?, fs::read_to_string("/proc/locks"));
    let pid = table.ok().and_then(|table| locked_by(&table, found.dev(), found.ino()));
    match pid {
        Some(pid) => Some(ports::process(pid)),
        None => ports::who_has_open(&[lock.to_str()?.to_owned()]),
    }
}

/// Who has locked a file, by the table of proc_locks(5); `None` if that is not told, such as of a process in
/// another namespace.
fn locked_by(table: &str, device: u64, inode: u64) -> Option<u32> {
    let file =
        format!("{:02x}:{:02x}:{inode}", rustix::fs::major(device), rustix::fs::minor(device));
    let of_line = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        // Who waits has an arrow in the second place.
        let is_held = fields.get(1) == Some(&"FLOCK") && fields.get(5) == Some(&&*file);
        is_held.then(|| fields.get(4)?.parse().ok().filter(|pid| *pid > 0))?
    };
    table.lines().find_map(of_line)
}

/// The process that held a store's directory which has been deleted since, as far as that is known.
pub(super) fn deleted_lock_holder(dir: &Path) -> Option<Owner> {
    let dir = std::path::absolute(dir).ok()?;
    let above = existing(&dir);
    let lock = above.canonicalize().ok()?.join(store::lock_path(&dir).strip_prefix(above).ok()?);
    // As proc_pid_fd(5) names what is gone.
    ports::who_has_open(&[format!("{} (deleted)", lock.to_str()?)])
}

/// Whether a file or directory, or what keeps this process from looking at it, belongs to somebody else.
pub(super) fn is_strange(path: &Path) -> bool {
    let found = path.ancestors().find_map(|above| fs::metadata(above).ok());
    let owner = found.map(|found| found.uid());
    user().is_some_and(|user| user != 0 && owner.is_some_and(|owner| owner != user))
}

/// The owner of the store's directory, who is the server's user, where that is another than ours.
pub(super) fn owner(store: &Path) -> Option<u32> {
    let owner = match fs::metadata(store) {
        Ok(found) => found.uid(),
        // Whose directory it is in.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            fs::metadata(existing(store)).ok()?.uid()
        }
        Err(_) => return None,
    };
    (user() != Some(owner)).then_some(owner)
}

/// The user that this process runs as.
fn user() -> Option<u32> {
    Some(fs::metadata("/proc/self").ok()?.uid())
}

/// What to do where this user may not look.
pub(super) fn who_may_look() -> Words {
    words(
        "run doctor as root (sudo) or as the server's user, in the container or namespace where it runs",
        "请以 root（sudo）或服务器的运行用户，并在服务器所在的容器或命名空间中执行 doctor",
    )
}

/// The nearest directory above that is there.
fn existing(path: &Path) -> &Path {
    let above = path.ancestors().find(|above| above.exists());
    // Above a relative path is where this process is.
    above.filter(|above| !above.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Whether files can be made in a directory: by its permissions, and by how its disk is mounted.
fn writable(dir: &Path) -> Result<(), String> {
    let is_read_only =
        statvfs(dir).is_ok_and(|disk| disk.f_flag.contains(StatVfsMountFlags::RDONLY));
    if is_read_only {
        return Err("its file system is mounted read-only".into());
    }
    access(dir, Access::WRITE_OK | Access::EXEC_OK).map_err(|errno| {
        let error: io::Error = errno.into();
        format!("{}: {error}", dir.display())
    })
}

/// What is to be said of it; `server_runs`: then it is the server's business, which says so itself, whether it can
/// be written to.
pub(super) fn judge(seen: &Directory, server_runs: bool) -> Vec<Finding> {
    let about = seen.path.display().to_string();
    let problem = |code, what: Words, remedy: Words| {
        Finding::problem(Topic::Store, code, &*about, what).remedy(remedy)
    };
    let not_writable = |why: &str| {
        problem(
            "store_not_writable",
            words(format!("cannot be written to: {why}"), format!("不可写：{why}")),
            words(
                "make it writable for the server's user (chown, mount -o remount,rw), or set store.path elsewhere; \
                 until then tokens are kept in memory and lost in a restart",
                "请让服务器的运行用户可以写入（chown 或 mount -o remount,rw），或更改 store.path；在此之前令牌仅在内存中，重启即丢失",
            ),
        )
    };
    let mut findings = Vec::new();
    match &seen.state {
        State::Missing(_) if server_runs => findings.push(problem(
            "store_gone",
            words(
                "is gone, although the server runs: until it has written it again, within a minute, a restart would \
                 lose every token",
                "服务器在运行，但该目录已不存在：服务器会在一分钟内重新写入，在此之前重启会丢失全部令牌",
            ),
            words(
                "find out who deleted or moved it, and do not stop the server now",
                "请查明是谁删除或移动了它；现在请不要停止服务器",
            ),
        )),
        State::Missing(Ok(())) => findings.push(Finding::ok(
            Topic::Store,
            "store_to_be_made",
            &*about,
            words("is not there yet; the first start makes it", "尚不存在，首次启动时创建"),
        )),
        State::Missing(Err(why)) => findings.push(not_writable(why)),
        State::Unusable(why) => findings.push(not_writable(why)),
        State::Strange => findings.push(
            Finding::warning(
                Topic::Store,
                "store_not_seen",
                &*about,
                words("belongs to another user, and was not looked at", "属于其他用户，未检查"),
            )
            .remedy(who_may_look()),
        ),
        State::Present { mode, writable, exposed, owner } => {
            match writable {
                Err(why) => findings.push(not_writable(why)),
                Ok(()) if *owner == Some(0) || owner.is_none() || mode & 0o300 == 0o300 => {
                    findings.push(Finding::ok(
                        Topic::Store,
                        "store_writable",
                        &*about,
                        words("can be written to", "可写"),
                    ));
                }
                Ok(()) => findings.push(not_writable("its owner may not write to it")),
            }
            if mode & 0o077 != 0 {
                let what = words(
                    format!("others may look into it (mode {mode:o}), and tokens are kept there"),
                    format!("其他用户可以进入（权限 {mode:o}），其中保存着令牌"),
                );
                let run = format!("chmod 700 {about}");
                findings.push(
                    Finding::warning(Topic::Store, "store_open", &*about, what)
                        .remedy(words(format!("run `{run}`"), format!("请运行 `{run}`"))),
                );
            }
            findings.extend(exposed.iter().map(|command| exposure("request_secret", command)));
        }
    }
    findings.extend(seen.space.map(|space| judge_space(&about, space, server_runs)));
    findings
}

fn judge_space(about: &str, space: u64, server_runs: bool) -> Finding {
    let left = space / MIB;
    let what =
        words(format!("{left} MiB are left on its disk"), format!("所在磁盘剩余 {left} MiB"));
    let remedy = words(
        "free space: a disk that is full keeps tokens from outliving a restart",
        "请释放空间：磁盘写满后，令牌将无法在重启后保留",
    );
    match space {
        ENOUGH.. => Finding::ok(Topic::Store, "disk_ok", about, what),
        // What runs has its files; they may still be enough.
        TOO_LITTLE.. => Finding::warning(Topic::Store, "disk_low", about, what).remedy(remedy),
        _ if server_runs => Finding::warning(Topic::Store, "disk_full", about, what).remedy(remedy),
        _ => Finding::problem(Topic::Store, "disk_full", about, what).remedy(remedy),
    }
}

/// What is to be said of a file with a secret in it that others may read.
fn exposure(setting: &str, command: &str) -> Finding {
    let what = words("is in a file that others may read", "所在文件可被其他用户读取");
    Finding::warning(Topic::Files, "file_exposed", setting, what)
        .remedy(words(format!("run `{command}`"), format!("请运行 `{command}`")))
}

/// What is to be said of the request secret that the store's directory keeps, where the config has none.
pub(super) fn kept_secret(config: &Config) -> Option<Finding> {
    if config.request_secret.is_some() {
        return None;
    }
    let path = store::secret_path(&config.store.path);
    match store::kept_secret(&config.store.path) {
        Ok(kept) => config::advice_on_kept(&kept?, &path).as_ref().map(super::advice),
        Err(error) if error.kind() == io::ErrorKind::InvalidData => {
            let about = path.display().to_string();
            // In words that say what to do, behind a semicolon.
            let words_of = error.to_string();
            let (en, remedy) = words_of.split_once("; ").unwrap_or((&words_of, ""));
            let what = words(en, "有多行，或含有密钥中不会出现的字符；服务器无法以此启动");
            let remedy = words(remedy, "请只保留一行密钥，或删除该文件：服务器启动时会重新生成");
            Some(
                Finding::problem(Topic::Files, "request_secret_unusable", about, what)
                    .remedy(remedy),
            )
        }
        // That this user may not read it is nothing to say: it is the server's.
        Err(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::finding::Mark;

    fn present(mode: u32, writable: Result<(), String>, owner: Option<u32>) -> State {
        State::Present { mode, writable, exposed: Vec::new(), owner }
    }

    #[test]
    fn a_directory_is_private_and_can_be_written_to_or_it_is_said_what_to_do() {
        let no = || Err("no".to_owned());
        for (state, expected) in [
            (State::Missing(Ok(())), &[(Mark::Ok, "store_to_be_made")][..]),
            (State::Missing(no()), &[(Mark::Problem, "store_not_writable")]),
            (State::Strange, &[(Mark::Warning, "store_not_seen")]),
            (State::Unusable("no".into()), &[(Mark::Problem, "store_not_writable")]),
            (present(0o700, Ok(()), None), &[(Mark::Ok, "store_writable")]),
            (present(0o700, Ok(()), Some(7)), &[(Mark::Ok, "store_writable")]),
            // Root may, and its owner, whom the server runs as, may not.
            (present(0o500, Ok(()), Some(7)), &[(Mark::Problem, "store_not_writable")]),
            (present(0o700, no(), None), &[(Mark::Problem, "store_not_writable")]),
            (
                present(0o755, Ok(()), None),
                &[(Mark::Ok, "store_writable"), (Mark::Warning, "store_open")],
            ),
        ] {
            let seen = Directory { path: "/s".into(), state, space: None };
            let findings = judge(&seen, false);
            let found: Vec<_> =
                findings.iter().map(|finding| (finding.mark, &*finding.code)).collect();
            assert_eq!(found, expected, "{seen:?}");
            assert!(findings.iter().all(|f| f.remedy.is_none() == (f.mark == Mark::Ok)));
        }
    }

    #[test]
    fn who_has_locked_a_file_is_in_the_kernels_table() {
        let table = "1: FLOCK  ADVISORY  WRITE 11832 fe:00:10010735 0 EOF\n\
            2: POSIX  ADVISORY  WRITE 7 fe:00:10037477 0 EOF\n\
            3: FLOCK  ADVISORY  WRITE 25113 fe:00:10037477 0 EOF\n\
            3: -> FLOCK  ADVISORY  WRITE 25120 fe:00:10037477 0 EOF\n\
            4: FLOCK  ADVISORY  WRITE -1 08:11:5 0 EOF\n";
        let device = rustix::fs::makedev(0xfe, 0);
        assert_eq!(locked_by(table, device, 10_037_477), Some(25_113));
        assert_eq!(locked_by(table, device, 1), None);
        assert_eq!(locked_by(table, rustix::fs::makedev(8, 0x11), 5), None);
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(judge(&observe(&dir.path().join("s"), dir.path()), true)[0].code, "store_gone");
    }

    #[test]
    fn a_disk_has_space_little_or_none() {
        for (space, runs, mark, code) in [
            (u64::MAX, false, Mark::Ok, "disk_ok"),
            (ENOUGH, false, Mark::Ok, "disk_ok"),
            (ENOUGH - 1, false, Mark::Warning, "disk_low"),
            (TOO_LITTLE, true, Mark::Warning, "disk_low"),
            (TOO_LITTLE - 1, false, Mark::Problem, "disk_full"),
            (0, true, Mark::Warning, "disk_full"),
        ] {
            let finding = judge_space("/s", space, runs);
            assert_eq!((finding.mark, &*finding.code), (mark, code), "{space}");
        }
    }

    #[test]
    fn a_look_finds_what_is_there_and_writes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let (store, file) = (dir.path().join("a/b"), dir.path().join("file"));
        fs::write(&file, "").unwrap();
        let look = |path: &Path| observe(path, &path.join("request_secret"));
        let seen = look(&store);
        assert_eq!(seen.state, State::Missing(Ok(())));
        assert!(seen.space.is_some() && !dir.path().join("a").exists());
        assert!(matches!(look(&file).state, State::Unusable(_)));
        assert!(matches!(look(&file.join("store")).state, State::Unusable(_)));
        fs::create_dir_all(&store).unwrap();
        fs::set_permissions(&store, fs::Permissions::from_mode(0o750)).unwrap();
        let secret = store.join("request_secret");
        fs::write(&secret, "").unwrap();
        fs::set_permissions(&secret, fs::Permissions::from_mode(0o640)).unwrap();
        let State::Present { mode: 0o750, writable: Ok(()), exposed, .. } = look(&store).state
        else {
            panic!("{:?}", look(&store))
        };
        assert_eq!(exposed, [format!("chmod go= {}", secret.display())]);
        assert_eq!(fs::read_dir(&store).unwrap().count(), 1);
        assert!(writable(Path::new("/proc/self")).is_err(), "nobody can make a file there");
        assert_eq!(existing(Path::new("nowhere/at/all")), Path::new("."));
    }
}
