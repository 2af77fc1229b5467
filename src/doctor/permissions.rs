//! What another user may read: by owners, groups and modes, as path_resolution(7) has it. Access lists are not looked
//! at, so that a no is a warning and no more.

use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// A user with all groups.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct User {
    pub(super) id: u32,
    groups: Vec<u32>,
}

impl User {
    /// With the groups of passwd(5) and group(5).
    pub(super) fn of(id: u32) -> User {
        let read = |path| fs::read_to_string(path).unwrap_or_default();
        User { id, groups: groups(id, &read("/etc/passwd"), &read("/etc/group")) }
    }

    /// What keeps the user from reading a file: the file, or a directory on the way to it. `None`: nothing, or what
    /// cannot be looked at.
    pub(super) fn kept_from(&self, path: &Path) -> Option<PathBuf> {
        let path = path.canonicalize().ok()?;
        let mut above: Vec<&Path> = path.ancestors().skip(1).collect();
        above.reverse();
        let closed = above.into_iter().find(|dir| !self.may(0o1, dir));
        closed.or_else(|| (!self.may(0o4, &path)).then_some(&*path)).map(Path::to_owned)
    }

    fn may(&self, wanted: u32, path: &Path) -> bool {
        fs::metadata(path).is_ok_and(|found| self.id == 0 || self.bits(&found) & wanted == wanted)
    }

    /// The permissions that count for the user: the first of owner's, group's and others' that fits.
    fn bits(&self, found: &Metadata) -> u32 {
        let mode = found.mode();
        if found.uid() == self.id {
            mode >> 6
        } else if self.groups.contains(&found.gid()) {
            mode >> 3
        } else {
            mode
        }
    }
}

fn groups(id: u32, passwd: &str, group: &str) -> Vec<u32> {
    let fields = |line: &'_ str| line.split(':').map(str::to_owned).collect::<Vec<String>>();
    let number = |fields: &[String], at: usize| fields.get(at)?.parse::<u32>().ok();
    let user = passwd.lines().map(fields).find(|fields| number(fields, 2) == Some(id));
    let Some(user) = user else { return Vec::new() };
    let others = group.lines().map(fields).filter(|fields| {
        fields.get(3).is_some_and(|members| members.split(',').any(|member| member == user[0]))
    });
    number(&user, 3).into_iter().chain(others.filter_map(|fields| number(&fields, 2))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn the_groups_of_a_user_are_those_of_both_tables() {
        let passwd =
            "root:x:0:0:root:/root:/bin/sh\nwts:x:998:997::/var/lib/wts:/bin/false\nbroken\n";
        let group = "root:x:0:\nssl-cert:x:101:postgres,wts\nadm:x:4:wtsx\n:\n";
        assert_eq!(groups(998, passwd, group), [997, 101]);
        assert_eq!(groups(0, passwd, group), [0]);
        assert_eq!(groups(5, passwd, group), Vec::<u32>::new());
    }

    #[test]
    fn what_is_in_the_way_is_the_first_that_is_closed() {
        let dir = tempfile::tempdir().unwrap();
        let (inner, file) = (dir.path().join("live"), dir.path().join("live/key.pem"));
        fs::create_dir(&inner).unwrap();
        fs::write(&file, "").unwrap();
        let mode = |path: &Path, mode| {
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        };
        let own = fs::metadata(dir.path()).unwrap();
        let stranger = User { id: own.uid() + 1_000, groups: Vec::new() };
        let fellow = User { groups: vec![own.gid()], ..stranger.clone() };
        let root = User { id: 0, groups: Vec::new() };
        let owner = User { id: own.uid(), groups: Vec::new() };
        for (modes, user, expected) in [
            ([0o755, 0o755, 0o644], &stranger, None),
            ([0o755, 0o755, 0o640], &stranger, Some(&file)),
            ([0o755, 0o755, 0o640], &fellow, None),
            ([0o755, 0o700, 0o644], &stranger, Some(&inner)),
            ([0o755, 0o750, 0o644], &fellow, None),
            ([0o700, 0o700, 0o600], &owner, None),
            ([0o700, 0o700, 0o600], &root, None),
        ] {
            mode(dir.path(), modes[0]);
            mode(&inner, modes[1]);
            mode(&file, modes[2]);
            let found = user.kept_from(&file);
            assert_eq!(
                found.as_ref(),
                expected.map(|p| p.canonicalize().unwrap()).as_ref(),
                "{modes:?}"
            );
        }
        mode(dir.path(), 0o700);
        assert_eq!(stranger.kept_from(&inner.join("nothing")), None);
    }
}
