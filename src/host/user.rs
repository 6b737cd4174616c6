//! Whom the measured program runs as. Never root.

use crate::error::{Code, Error, Result};
use nix::unistd::{Gid, Uid, User};
use std::path::PathBuf;

/// The measured user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MeasuredUser {
    /// User id; never 0.
    pub uid: u32,
    /// Primary group; supplementary groups (docker, sudo, …) are dropped.
    pub gid: u32,
    /// Name, or the id as text when the host has no name for it.
    pub name: String,
    /// Home folder, when the host knows one.
    pub home: Option<PathBuf>,
}

impl MeasuredUser {
    /// `wanted` (name or id) if given, else the user who called sudo, else nobody.
    ///
    /// # Errors
    /// `MeasuredUser` when the name is unknown or means root.
    pub fn choose(wanted: Option<&str>, sudo_uid: Option<&str>) -> Result<Self> {
        if let Some(wanted) = wanted {
            return Self::named(wanted);
        }
        // sudo from a root shell leaves SUDO_UID=0: then there is no user to go back to.
        match sudo_uid.and_then(|uid| uid.parse::<u32>().ok()).filter(|uid| *uid != 0) {
            Some(uid) => Self::by_id(uid),
            None => Self::named("nobody").or_else(|_| Self::by_id(65534)),
        }
    }

    fn named(wanted: &str) -> Result<Self> {
        let found = User::from_name(wanted).map_err(|error| {
            Error::new(Code::MeasuredUser, format!("cannot look up user {wanted:?}: {error}"))
        })?;
        match (found, wanted.parse::<u32>()) {
            (Some(user), _) => Self::of(user.uid.as_raw(), user.gid.as_raw(), user.name, Some(user.dir)),
            (None, Ok(uid)) => Self::by_id(uid),
            (None, Err(_)) => {
                Err(Error::new(Code::MeasuredUser, format!("this host has no user {wanted:?}"))
                    .hint("getent passwd, or leave --user out to measure as nobody"))
            }
        }
    }

    fn by_id(uid: u32) -> Result<Self> {
        match User::from_uid(Uid::from_raw(uid)) {
            Ok(Some(user)) => Self::of(uid, user.gid.as_raw(), user.name, Some(user.dir)),
            _ => Self::of(uid, uid, uid.to_string(), None),
        }
    }

    fn of(uid: u32, gid: u32, name: String, home: Option<PathBuf>) -> Result<Self> {
        if Uid::from_raw(uid).is_root() || Gid::from_raw(gid).as_raw() == 0 {
            return Err(Error::new(
                Code::MeasuredUser,
                format!("a measured program never runs as root: {name} has uid {uid} and gid {gid}"),
            )
            .hint("leave --user out to measure as nobody"));
        }
        Ok(Self { uid, gid, name, home })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_user_is_the_named_one_then_sudos_then_nobody_and_never_root() {
        assert_eq!(MeasuredUser::choose(None, None).unwrap().uid, 65534);
        assert_eq!(MeasuredUser::choose(None, Some("0")).unwrap().uid, 65534);
        assert_eq!(MeasuredUser::choose(None, Some("4711")).unwrap().uid, 4711);
        assert_eq!(MeasuredUser::choose(Some("4712"), Some("4711")).unwrap().uid, 4712);
        for root in ["root", "0"] {
            assert_eq!(MeasuredUser::choose(Some(root), None).unwrap_err().code(), Code::MeasuredUser);
        }
        assert_eq!(MeasuredUser::choose(Some("no-such-user"), None).unwrap_err().code(), Code::MeasuredUser);
    }
}
