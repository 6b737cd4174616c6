//! Secrets are replaced, comparably, and nothing is written when one survives.

use crate::fixtures::KEY;
use assay_gates::error::Code;
use assay_gates::evidence::RedactionKey;
use assay_gates::evidence::redaction::{Redactor, Shapes};
use proptest::prelude::*;

fn redacted(text: &str) -> String {
    let mut text = text.to_owned();
    Redactor::new(&KEY).unwrap().text("value", &mut text);
    text
}

fn rules(text: &str) -> Vec<&'static str> {
    Shapes::shared().unwrap().hits(text).iter().map(|hit| hit.rule).collect()
}

/// Spelled in two parts, so that scanners of this repository don't find secrets in it.
fn joined(parts: &[&str]) -> String {
    parts.concat()
}

#[test]
fn each_shape_is_found_in_a_path_and_one_character_less_is_not() {
    let alnum = |n: usize| "aB3dE5gH7j".repeat(8)[..n].to_owned();
    for (rule, head, tail) in [
        ("aws-access-key-id", "AKIA", "ABCDEFGHIJ234567".to_owned()),
        ("aws-access-key-id", "ASIA", "ABCDEFGHIJ234567".to_owned()),
        ("github-token", "ghp_", alnum(36)),
        ("github-token", "gho_", alnum(36)),
        ("github-token", "ghu_", alnum(36)),
        ("github-token", "ghs_", alnum(36)),
        ("github-token", "ghr_", alnum(36)),
        ("github-fine-grained-pat", "github_pat_", alnum(22)),
        ("openai-key", "sk-", alnum(20)),
        ("slack-token", "xoxb-", alnum(10)),
        ("google-api-key", "AIza", alnum(35)),
        ("stripe-key", "sk_live_", alnum(16)),
        ("stripe-key", "pk_test_", alnum(16)),
        ("bearer-token", "Bearer ", alnum(20)),
        ("sensitive-query-param", "sig=", alnum(6)),
        ("sensitive-query-param", "refresh_token=", alnum(6)),
        ("credential-assignment", "PASSWORD=", alnum(6)),
        ("credential-assignment", "api-key: ", alnum(6)),
        ("credential-assignment", "client_secret=", alnum(6)),
    ] {
        let secret = joined(&[head, &tail]);
        let found = rules(&format!("/w/{secret}"));
        assert!(
            found == [rule] || (head.contains("token") && found.len() == 1),
            "{secret}: {found:?} instead of {rule}"
        );
        let short = joined(&[head, &tail[..tail.len() - 1]]);
        assert!(!rules(&format!("/w/{short}")).contains(&rule), "{short}");
        assert!(!redacted(&format!("/w/{secret}/x")).contains(&tail), "{secret}");
    }
}

#[test]
fn keys_and_tokens_of_several_parts_are_found_whole() {
    let jwt = joined(&["eyJhbGciOi", "JIUzI1NiJ9.", "eyJzdWIiOiIx", "MjM0In0.", "SflKxwRJSMeKKF2Q"]);
    assert_eq!(rules(&jwt), ["jwt"]);
    assert_eq!(rules(&format!("ghs_12345_{jwt}")), ["github-token"]);
    let pem = joined(&[
        "-----BEGIN RSA ",
        "PRIVATE KEY-----\nMIIEowIBAAKCAQEA\nabc=\n-----END RSA PRIVATE KEY-----",
    ]);
    assert_eq!(rules(&pem), ["private-key-pem"]);
    assert!(!redacted(&pem).contains("MIIE"));
}

#[test]
fn ordinary_words_are_left_alone() {
    for text in [
        "/w/task-runner-configuration-of-the-project.json",
        "/usr/bin/tokenizer",
        "/w/secret",
        "/w/password.txt",
        "bearer of news",
        "/run/assay-gates/work/input.txt",
        "/w/disk-utilization-monitoring-tool",
    ] {
        assert_eq!(redacted(text), text);
    }
}

#[test]
fn the_same_secret_reads_the_same_and_another_key_reads_differently() {
    let secret = joined(&["ghp_", &"a1".repeat(18)]);
    let once = redacted(&format!("/w/{secret}"));
    assert_eq!(once, redacted(&format!("/w/{secret}")));
    assert!(once.starts_with("/w/<redacted:github-token:") && once.ends_with('>'), "{once}");
    let other = RedactionKey::fixed([8; 32]);
    let mut text = format!("/w/{secret}");
    Redactor::new(&other).unwrap().text("value", &mut text);
    assert_ne!(once, text);
    assert_ne!(KEY.id(), other.id());
}

#[test]
fn placeholders_are_not_redacted_again() {
    let once = redacted("/w/slack-token=abcdefghij");
    assert_eq!(redacted(&once), once);
    let marked = "<redacted:google-api-key:0123abcd>";
    assert_eq!(redacted(marked), marked);
    assert_ne!(redacted("<redacted:no-such-secret:0123abcd>"), "<redacted:no-such-secret:0123abcd>");
}

#[test]
fn the_earliest_match_wins_and_the_longest_on_a_tie() {
    let text = joined(&["token=ghp_", &"a".repeat(40), " sig=abcdef"]);
    assert_eq!(rules(&text), ["credential-assignment", "sensitive-query-param"]);
    let tie = joined(&["access_token=", "abcdef'tail"]);
    assert_eq!(rules(&tie), ["sensitive-query-param"]);
}

#[test]
fn values_of_credential_flags_go_and_the_program_stays() {
    let argv = |words: &[&str]| {
        let mut argv: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
        Redactor::new(&KEY).unwrap().argv("command", &mut argv);
        argv
    };
    let found =
        argv(&["--token", "x", "--API-KEY", "abc", "--password=hunter2", "-p", "1", "--token=", "tail"]);
    assert_eq!(found[..3], ["--token", "x", "--API-KEY"]);
    assert!(found[3].starts_with("<redacted:credential-flag-value:"), "{found:?}");
    assert!(found[4].starts_with("--password=<redacted:credential-flag-value:"), "{found:?}");
    assert!(found[6].starts_with("<redacted:credential-flag-value:"), "{found:?}");
    assert_eq!(found[7..], ["--token=", "tail"]);
    let found = argv(&["curl", "https://user:hunter2@host/x"]);
    assert!(
        found[1].starts_with("https://<redacted:url-userinfo:") && found[1].ends_with("@host/x"),
        "{found:?}"
    );
}

#[test]
fn counts_name_rule_and_field() {
    let mut redactor = Redactor::new(&KEY).unwrap();
    for field in ["value", "value", "filesystem_paths"] {
        redactor.text(field, &mut joined(&["sk_live_", "abcdefgh12345678"]));
    }
    let receipt = redactor.receipt();
    assert_eq!(receipt.redacted_count, 3);
    assert_eq!(serde_json::to_string(&receipt.by_rule).unwrap(), r#"{"stripe-key":3}"#);
    assert_eq!(serde_json::to_string(&receipt.by_field).unwrap(), r#"{"filesystem_paths":1,"value":2}"#);
    assert_eq!((receipt.mode.as_str(), receipt.key_scope.as_str()), ("shape_and_flag", "host_local"));
    assert!(receipt.key_id.starts_with("hmac-sha256:") && receipt.key_id.len() == 20);
}

#[test]
fn the_sweep_names_place_and_rule_but_not_the_secret() {
    let secret = joined(&["sk_live_", "abcdefgh12345678"]);
    let error =
        Redactor::new(&KEY).unwrap().sweep("layers/kernel.ndjson", &format!("\"{secret}\"")).unwrap_err();
    assert_eq!(error.code(), Code::RedactionIncomplete);
    assert!(error.to_string().contains("stripe-key") && error.to_string().contains("layers/kernel.ndjson"));
    assert!(!error.to_string().contains("abcdefgh"));
}

proptest! {
    #[test]
    fn what_is_redacted_passes_the_sweep_as_written(
        text in "(?:[a-z/=: \\\\\"\\t\\n-]|token=|sk-|eyJ|secret:|Bearer |ghp_|<redacted:jwt:00000000>|a1B2c3D4e5F6g7H8i9J0k){0,12}"
    ) {
        let clean = redacted(&text);
        let written = serde_json::to_string(&clean).unwrap();
        prop_assert!(Redactor::new(&KEY).unwrap().sweep("x", &written).is_ok(), "{written}");
        prop_assert_eq!(redacted(&clean), clean.clone());
    }
}
