//! Who else may read a file that a secret stands in: the config itself, or one that it names. Gives
//! advice, and reads no content.

use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::lower::Lowering;

/// Where the secrets of a config stand, as far as that is in files.
#[derive(Debug, Default)]
pub(super) struct Exposure {
    /// The first setting with a secret that is written in the config itself.
    written: Option<String>,
    /// The files that secrets are read from, each with the first setting that does so.
    named: Vec<(PathBuf, String)>,
}

impl Exposure {
    /// Notes the secret of the setting at `path`: as it was written, and the files it names.
    pub(super) fn note(&mut self, path: &str, written: &str, files: Vec<PathBuf>) {
        // What is taken from elsewhere is not written here: `Bearer {{other}}` is no secret.
        let literal = !written.is_empty() && !written.contains("${") && !written.contains("{{");
        if literal && self.written.is_none() {
            self.written = Some(path.to_owned());
        }
        for file in files {
            if !self.named.iter().any(|(known, _)| *known == file) {
                self.named.push((file, path.to_owned()));
            }
        }
    }

    /// Advises on each of these files that others may read; `config` is the config's own.
    pub(super) fn advise(self, config: &Path, lowering: &mut Lowering<'_>) {
        let written = self.written.map(|path| (config.to_owned(), path));
        let files = written.into_iter().chain(self.named);
        for (file, path) in files {
            // One that is not there is a mistake of its own, or a text that came from no file.
            if let (Ok(metadata), Some(uid)) = (fs::metadata(&file), our_uid())
                && let Some(command) = remedy(&metadata, uid)
            {
                let file = file.display();
                let en =
                    format!("is a secret in a file that others may read; run `{command} {file}`");
                let zh = format!("所在文件含有密钥，且可被其他用户读取；请运行 `{command} {file}`");
                lowering.advise(path, (en, zh));
            }
        }
    }
}

/// The command that takes a file from those who should not read what is secret in it; `None` if there is nothing to
/// be taken, or no such file.
pub fn closing_command(file: &Path) -> Option<String> {
    let command = remedy(&fs::metadata(file).ok()?, our_uid()?)?;
    Some(format!("{command} {}", file.display()))
}

/// How the names of parameters and headers end that hold a secret.
const SECRET_ENDS: &[&str] = &[
    "secret",
    "secretkey",
    "secret_key",
    "password",
    "passwd",
    "token",
    "authorization",
    "permanent_code",
    "apikey",
    "api_key",
    "api-key",
];

/// Whether a parameter or header of this name holds a secret, as vendors name them.
pub(super) fn is_secret_name(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    SECRET_ENDS.iter().any(|end| name.ends_with(end))
}

/// The command that takes a file from all but its owner; `None` if nobody else may do anything with it.
fn remedy(metadata: &Metadata, uid: u32) -> Option<&'static str> {
    let (group, others) = (metadata.mode() & 0o070 != 0, metadata.mode() & 0o007 != 0);
    match metadata.uid() == uid {
        true if group || others => Some("chmod go="),
        // Root's file is read by the right of the group: that is how a service is given one.
        false if others => Some("chmod o="),
        _ => None,
    }
}

/// Who we are; `None` where the system does not say so.
fn our_uid() -> Option<u32> {
    fs::metadata("/proc/self").ok().map(|own| own.uid())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_file_is_its_owners_or_root_shares_it_with_the_services_group() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        fs::write(&path, "").unwrap();
        let own = fs::metadata(&path).unwrap().uid();
        for (mode, of_ours, of_another) in [
            (0o600, None, None),
            (0o400, None, None),
            (0o640, Some("chmod go="), None),
            (0o620, Some("chmod go="), None),
            (0o644, Some("chmod go="), Some("chmod o=")),
            (0o604, Some("chmod go="), Some("chmod o=")),
        ] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            let metadata = fs::metadata(&path).unwrap();
            assert_eq!(remedy(&metadata, own), of_ours, "{mode:o}");
            assert_eq!(remedy(&metadata, own + 1), of_another, "{mode:o}");
        }
    }

    #[test]
    fn names_of_secrets_are_told_by_what_vendors_call_them() {
        for name in [
            "secret",
            "clientSecret",
            "component_appsecret",
            "X-Api-Key",
            "Authorization",
            "permanent_code",
            "refresh_token",
        ] {
            assert!(is_secret_name(name), "{name}");
        }
        for name in ["appid", "grant_type", "client_key", "type", "token_type", "suite_id"] {
            assert!(!is_secret_name(name), "{name}");
        }
    }
}
