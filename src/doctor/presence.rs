//! Whether a server runs, beside a process that could not ask it or has: by its answer, by who holds its store, listens
//! at its address, or was started with its config. What cannot be asked may serve very well: nothing is fetched beside it.

use std::path::Path;

use super::files;
use super::finding::{Finding, Topic, Words, words};
use super::ports::{self, Outcome, Owner};
use crate::config::Whereabouts;
use crate::store;

/// Whether a server runs, as far as this process can tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Presence {
    /// It has answered.
    Answers {
        /// Its process, if this user may know it.
        pid: Option<u32>,
    },
    /// It is there, and has not answered what it was asked.
    Silent {
        /// Its process, if this user may know it.
        pid: Option<u32>,
        /// Whether it does not listen where the config says: it was started with another one.
        is_elsewhere: bool,
    },
    /// One listens where the config says, and does not have the store of the config: it is another's, or the store
    /// was moved.
    WithAnotherStore {
        /// Its process.
        pid: u32,
    },
    /// Somebody is there, and this user may not know who.
    Untold,
    /// None is there.
    Absent {
        /// Whether another program listens where the config says.
        is_taken: bool,
    },
}

/// What came of asking the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    /// It has answered.
    Answered,
    /// A server has, and has not told what it was asked.
    Refused,
    /// None has.
    Unanswered,
}

/// Who holds a store's directory.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Holder {
    Nobody,
    /// Whom, as far as this process may know.
    Somebody(Option<Owner>),
    /// This user may not look.
    Hidden,
}

impl Presence {
    /// Of the server with these whereabouts, which `file` says, by what came of asking there.
    pub fn of(found: &Whereabouts, file: &Path, asked: Asked) -> Presence {
        let listener = ports::observe("http.bind", found.bind);
        if asked == Asked::Answered {
            return Presence::Answers { pid: listener.pid() };
        }
        let holder = match store::is_locked(&found.store) {
            Ok(true) => Holder::Somebody(files::lock_holder(&found.store)),
            // Its store may be deleted, or made anew, while it runs.
            Ok(false) => match files::deleted_lock_holder(&found.store) {
                Some(owner) => Holder::Somebody(Some(owner)),
                None => Holder::Nobody,
            },
            Err(_) => Holder::Hidden,
        };
        let presence = Presence::judge(&listener.outcome, &holder, asked == Asked::Refused);
        match ports::server_of(file) {
            // Its store may have been moved away.
            Some(pid) if !presence.has_store() => {
                let is_elsewhere = listener.pid() != Some(pid);
                Presence::Silent { pid: Some(pid), is_elsewhere }
            }
            _ => presence,
        }
    }

    fn judge(listener: &Outcome, holder: &Holder, has_refused: bool) -> Presence {
        match (holder, listener) {
            // Who holds the store is its server, wherever it listens; who listens may be another's.
            (Holder::Somebody(Some(owner)), _) if owner.is_server => {
                let is_elsewhere = match listener {
                    Outcome::Taken(Some(other)) => other.pid != owner.pid && other.pid != 1,
                    // Nobody knows: any port will do, or this user may not see whose it is.
                    Outcome::Any | Outcome::Taken(None) => false,
                    _ => true,
                };
                Presence::Silent { pid: Some(owner.pid), is_elsewhere }
            }
            // A refusal in a server's words: whose, this user may not see.
            (Holder::Somebody(None) | Holder::Hidden, _) if has_refused => {
                Presence::Silent { pid: None, is_elsewhere: false }
            }
            (Holder::Somebody(None) | Holder::Hidden, _) | (_, Outcome::Taken(None)) => {
                Presence::Untold
            }
            (_, Outcome::Taken(Some(other))) if other.is_server => {
                Presence::WithAnotherStore { pid: other.pid }
            }
            _ => Presence::Absent { is_taken: matches!(listener, Outcome::Taken(_)) },
        }
    }

    /// Whether one runs, beyond doubt.
    pub fn is_sure(&self) -> bool {
        !matches!(self, Presence::Untold | Presence::Absent { .. })
    }

    /// Whether one runs that has the store of the config.
    pub(super) fn has_store(&self) -> bool {
        matches!(self, Presence::Answers { .. } | Presence::Silent { .. })
    }

    /// Its process.
    pub(super) fn pid(&self) -> Option<u32> {
        match self {
            Presence::Answers { pid } => *pid,
            Presence::Silent { pid, .. } => *pid,
            Presence::WithAnotherStore { pid } => Some(*pid),
            Presence::Untold | Presence::Absent { .. } => None,
        }
    }

    /// What is to be said of a server that could not be asked, and why not. `None` where nobody is there: that goes
    /// without saying.
    pub fn not_asked(&self, why: &Words) -> Option<Finding> {
        let problem =
            |code, what, remedy| Finding::problem(Topic::Server, code, "", what).remedy(remedy);
        let process = self.pid().map_or_else(
            || words("", ""),
            |pid| words(format!(" (process {pid})"), format!("（进程 {pid}）")),
        );
        match self {
            Presence::Answers { .. } | Presence::Absent { is_taken: false } => None,
            Presence::Absent { is_taken: true } => Some(
                Finding::warning(
                    Topic::Server,
                    "server_not_asked",
                    "",
                    words(
                        format!("the server could not be asked: {}", why.en),
                        format!("无法询问服务器：{}", why.zh),
                    ),
                )
                .remedy(words("see who listens there, under Ports", "监听者见「端口」一节")),
            ),
            Presence::Silent { is_elsewhere: false, .. } => Some(problem(
                "server_not_asked",
                words(
                    format!("runs{}, and could not be asked: {}", process.en, why.en),
                    format!("正在运行{}，但无法询问：{}", process.zh, why.zh),
                ),
                words(
                    "see to that, and run doctor again: what only the server knows, such as how its tokens are, is \
                     missing here",
                    "请先处理此问题，再次运行 doctor：此处缺少只有服务器知道的内容（如令牌状态）",
                ),
            )),
            Presence::Silent { is_elsewhere: true, .. } => Some(problem(
                "server_elsewhere",
                words(
                    format!("runs{}, and does not listen at http.bind", process.en),
                    format!("正在运行{}，但没有在 http.bind 上监听", process.zh),
                ),
                words(
                    "if http.bind was changed since its start, restart it; if it was started with another config, run \
                     doctor with that one (--config), or give each its own store.path; if it runs in another container \
                     or network namespace, run doctor there",
                    "若启动后改过 http.bind，请重启服务器；若它使用另一份配置，请用那份配置运行 doctor（--config），\
                     或让两者使用不同的 store.path；若它运行在另一容器或网络命名空间，请在那里运行 doctor",
                ),
            )),
            Presence::WithAnotherStore { .. } => Some(problem(
                "server_with_another_store",
                words(
                    format!(
                        "one listens at http.bind{}, and does not have the store of this config",
                        process.en
                    ),
                    format!(
                        "http.bind 上有一个服务器在监听{}，但它没有使用本配置的存储目录",
                        process.zh
                    ),
                ),
                words(
                    "if it has another config, give this one an http.bind of its own; if the store was moved or \
                     store.path changed since its start, move it back or restart it",
                    "若它使用另一份配置，请为本配置另设 http.bind；若启动后移动过存储目录或改过 store.path，请移回或重启它",
                ),
            )),
            Presence::Untold => Some(
                Finding::warning(
                    Topic::Server,
                    "server_untold",
                    "",
                    words(
                        format!("a server may run, and could not be asked: {}", why.en),
                        format!("服务器可能正在运行，但无法询问：{}", why.zh),
                    ),
                )
                .remedy(files::who_may_look()),
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ABSENT: Presence = Presence::Absent { is_taken: false };

    #[test]
    fn a_server_is_known_by_where_it_listens_and_by_what_it_holds() {
        let owner = |pid, is_server| Some(Owner { pid, name: "x".into(), is_server });
        let (server, other, systemd) = (owner(7, true), owner(8, false), owner(1, false));
        let another = owner(9, true);
        let holds = |owner: &Option<Owner>| Holder::Somebody(owner.clone());
        let taken = |owner: &Option<Owner>| Outcome::Taken(owner.clone());
        let silent = |is_elsewhere| Presence::Silent { pid: Some(7), is_elsewhere };
        let elsewhere = Presence::Absent { is_taken: true };
        for (listener, holder, presence) in [
            (Outcome::Free, Holder::Nobody, ABSENT),
            (Outcome::Any, Holder::Nobody, ABSENT),
            (taken(&other), Holder::Nobody, elsewhere),
            (taken(&another), Holder::Nobody, Presence::WithAnotherStore { pid: 9 }),
            (taken(&another), holds(&server), silent(true)),
            (taken(&server), holds(&server), silent(false)),
            (taken(&systemd), holds(&server), silent(false)),
            (Outcome::Any, holds(&server), silent(false)),
            (Outcome::Taken(None), holds(&server), silent(false)),
            (Outcome::Free, holds(&server), silent(true)),
            (taken(&other), holds(&server), silent(true)),
            // Whoever holds the store and is no server, a backup for one, is named by the look at the store.
            (Outcome::Free, holds(&other), ABSENT),
            (Outcome::Taken(None), Holder::Nobody, Presence::Untold),
            (Outcome::Taken(None), holds(&other), Presence::Untold),
            (Outcome::Free, holds(&None), Presence::Untold),
            (Outcome::Free, Holder::Hidden, Presence::Untold),
            (taken(&server), Holder::Hidden, Presence::Untold),
        ] {
            assert_eq!(
                Presence::judge(&listener, &holder, false),
                presence,
                "{listener:?} {holder:?}"
            );
            let finding = presence.not_asked(&words("why", "原因"));
            assert_eq!(finding.is_none(), presence == ABSENT);
            assert!(finding.is_none_or(|finding| finding.remedy.is_some()));
        }
        // A refusal proves that one runs, and not whose store it has.
        let refused = |holder: &Holder| Presence::judge(&Outcome::Taken(None), holder, true);
        let unknown = Presence::Silent { pid: None, is_elsewhere: false };
        assert_eq!(refused(&Holder::Hidden), unknown);
        assert!(
            unknown
                .not_asked(&words("why", "原因"))
                .is_some_and(|f| f.what.en.starts_with("runs, "))
        );
        assert_eq!(
            Presence::judge(&taken(&another), &Holder::Nobody, true),
            Presence::WithAnotherStore { pid: 9 }
        );
    }
}
