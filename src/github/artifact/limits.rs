//! What the service takes: names, days of retention, and how many artifacts.

use crate::error::{Code, Error, Result};
use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};

/// Artifacts that GitHub keeps of one job; the service refuses the next.
pub const ARTIFACTS_PER_JOB: u32 = 500;

/// Whether the service takes an artifact of this name.
///
/// # Errors
/// `ArtifactName` names the character.
pub fn check_name(name: &str) -> Result<()> {
    let wrong = |found: String| {
        Err(Error::new(
            Code::ArtifactName,
            format!(
                "expected a name without any of \" : < > | * ? \\ / or control characters, found {found}"
            ),
        )
        .at("--name"))
    };
    if name.trim().is_empty() {
        return wrong("an empty one".to_owned());
    }
    match name.chars().find(|c| c.is_control() || "\":<>|*?\\/".contains(*c)) {
        Some(bad) => wrong(format!("{bad:?} in {name:?}")),
        None => Ok(()),
    }
}

/// Days to ask for: what the caller wants, at most what the repository allows (`GITHUB_RETENTION_DAYS`; 0 is no cap).
/// `None` leaves it to the repository.
#[must_use]
pub fn retention(wanted: Option<u32>, cap: Option<u32>) -> Option<u32> {
    let wanted = wanted.filter(|days| *days > 0)?;
    Some(match cap.filter(|days| *days > 0) {
        Some(cap) => wanted.min(cap),
        None => wanted,
    })
}

/// `expires_at` of an artifact that is kept for `days` from `now` on.
#[must_use]
pub fn expiry(now: DateTime<Utc>, days: u32) -> String {
    (now + TimeDelta::days(i64::from(days))).to_rfc3339_opts(SecondsFormat::Millis, true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_windows_or_the_service_refuse_are_refused_here() {
        assert!(check_name("assay-runner-delegated-proof-pack-42").is_ok());
        for bad in ["", " ", "a/b", "a\\b", "a:b", "a\nb", "a\rb", "a\"b", "a<b", "a>b", "a|b", "a*b", "a?b"]
        {
            assert_eq!(check_name(bad).unwrap_err().code(), Code::ArtifactName, "{bad:?}");
        }
    }

    #[test]
    fn retention_is_capped_and_zero_means_unset_on_both_sides() {
        for (wanted, cap, expected) in [
            (None, Some(90), None),
            (Some(0), Some(90), None),
            (Some(30), Some(90), Some(30)),
            (Some(365), Some(90), Some(90)),
            (Some(365), Some(0), Some(365)),
            (Some(365), None, Some(365)),
        ] {
            assert_eq!(retention(wanted, cap), expected, "{wanted:?} {cap:?}");
        }
    }
}
