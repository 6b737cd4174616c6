//! Every way in which a request can go wrong, at every request of an upload.

use crate::harness::{NAME, Outcome, request, run, token, zip_of};
use crate::server::{Fault, Kind, SIGNATURE, Server};
use assay_gates::error::Code;
use assay_gates::github::artifact::Timeouts;
use std::time::Duration;

/// One full block and a short one.
const TWO_BLOCKS: usize = 8 * 1024 * 1024 + 5;

fn never_shows_a_secret(outcome: &Outcome) {
    let visible = outcome.visible();
    for secret in [token().reveal(), SIGNATURE, "secretsignature"] {
        assert!(!visible.contains(secret), "{visible}");
    }
}

/// Uploads once with `fault` at each request in turn; all must end well, with the very bytes stored.
fn survives_at_every_request(kind: Kind, bytes: usize, fault: &Fault) {
    let folder = tempfile::tempdir().unwrap();
    let zip = zip_of(folder.path(), bytes);
    let calm = Server::start(kind);
    run(&calm, &request(&zip), Timeouts::default()).result.unwrap();
    for at in 0..calm.steps().len() {
        let server = Server::start(kind);
        server.fault(at, fault.clone());
        let outcome = run(&server, &request(&zip), Timeouts::default());
        never_shows_a_secret(&outcome);
        let steps = server.steps();
        let uploaded = outcome.result.unwrap_or_else(|error| panic!("{fault:?} at {at} {steps:?}: {error}"));
        assert_eq!(server.stored(NAME).unwrap(), std::fs::read(&zip).unwrap(), "{fault:?} at {at} {steps:?}");
        assert_eq!(uploaded.bytes, bytes as u64);
    }
}

#[test]
fn a_reset_at_any_request_is_survived() {
    survives_at_every_request(Kind::Github, TWO_BLOCKS, &Fault::Reset);
    survives_at_every_request(Kind::Act, 1000, &Fault::Reset);
}

#[test]
fn an_answer_lost_after_the_work_was_done_is_survived_at_any_request() {
    survives_at_every_request(Kind::Github, 1000, &Fault::Lost);
    survives_at_every_request(Kind::Act, TWO_BLOCKS, &Fault::Lost);
}

#[test]
fn a_truncated_answer_is_survived_at_any_request() {
    survives_at_every_request(Kind::Github, 1000, &Fault::Truncated);
}

#[test]
fn answers_that_ask_for_another_try_are_survived_at_any_request() {
    for status in [429, 500, 502, 503, 504] {
        survives_at_every_request(
            Kind::Github,
            1000,
            &Fault::Answer(status, "", r#"{"code":"unavailable","msg":"later"}"#),
        );
    }
}

#[test]
fn html_in_place_of_json_is_survived_at_any_request() {
    let page = "<!DOCTYPE html><title>Unicorn!</title>";
    survives_at_every_request(Kind::Github, 1000, &Fault::Answer(502, "Content-Type: text/html\r\n", page));
    let folder = tempfile::tempdir().unwrap();
    let zip = zip_of(folder.path(), 10);
    for at in [0, 1, 4, 5] {
        let server = Server::start(Kind::Github);
        server.fault(at, Fault::Answer(200, "Content-Type: text/html\r\n", page));
        run(&server, &request(&zip), Timeouts::default()).result.unwrap();
        assert!(server.stored(NAME).is_some());
    }
}

#[test]
fn retry_after_is_honoured_in_seconds_and_as_a_date() {
    let folder = tempfile::tempdir().unwrap();
    let zip = zip_of(folder.path(), 10);
    for (header, seconds) in [
        ("Retry-After: 17\r\n", 17),
        // 40 s after the test's own clock.
        ("Retry-After: Sat, 21 Nov 2026 10:00:40 GMT\r\n", 40),
        ("Retry-After: Sat, 21 Nov 2026 09:00:00 GMT\r\n", 0),
    ] {
        for (at, status) in [(1, 429), (2, 503), (3, 503), (4, 429)] {
            let server = Server::start(Kind::Github);
            server.fault(at, Fault::Answer(status, header, ""));
            let outcome = run(&server, &request(&zip), Timeouts::default());
            outcome.result.unwrap();
            assert_eq!(outcome.slept, [Duration::from_secs(seconds)], "{header} at {at}");
        }
    }
}

#[test]
fn a_server_that_asks_for_an_hour_is_not_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(Kind::Github);
    server.fault(1, Fault::Answer(429, "Retry-After: 3600\r\n", ""));
    let outcome = run(&server, &request(&zip_of(folder.path(), 10)), Timeouts::default());
    let error = outcome.result.unwrap_err();
    assert_eq!(error.code(), Code::ArtifactGaveUp);
    assert!(error.message().contains("3600 s"), "{error}");
    assert!(outcome.slept.is_empty());
}

#[test]
fn pauses_grow_and_an_upload_ends_after_its_attempts_with_the_exit_code_for_infrastructure() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(Kind::Github);
    for at in 1..20 {
        server.fault(at, Fault::Answer(503, "", "down"));
    }
    let outcome = run(&server, &request(&zip_of(folder.path(), 10)), Timeouts::default());
    let error = outcome.result.as_ref().unwrap_err();
    assert_eq!((error.code(), error.exit().code()), (Code::ArtifactGaveUp, 13));
    assert!(error.message().contains("503") && error.message().contains("after 7 attempts"), "{error}");
    assert_eq!(outcome.slept.len(), 6);
    assert_eq!(outcome.slept[0], Duration::from_secs(3));
    assert!(outcome.slept.windows(2).all(|pair| pair[0] < pair[1]), "{:?}", outcome.slept);
}

#[test]
fn an_answer_that_never_comes_ends_by_timeout_and_is_tried_again() {
    let folder = tempfile::tempdir().unwrap();
    let zip = zip_of(folder.path(), 10);
    let short = Timeouts {
        call: Duration::from_millis(150),
        block: Duration::from_millis(150),
        ..Timeouts::default()
    };
    for at in 0..6 {
        let server = Server::start(Kind::Github);
        server.fault(at, Fault::Silent);
        let outcome = run(&server, &request(&zip), short);
        assert!(outcome.visible().contains("no answer in time"), "{at}: {}", outcome.visible());
        outcome.result.unwrap();
    }
}

#[test]
fn a_finalize_that_is_refused_although_the_blob_is_stored_is_recovered_by_its_digest() {
    let folder = tempfile::tempdir().unwrap();
    let zip = zip_of(folder.path(), 10);
    for fault in [Fault::Lost, Fault::Truncated] {
        let server = Server::start(Kind::Github);
        server.fault(4, fault);
        let uploaded = run(&server, &request(&zip), Timeouts::default()).result.unwrap();
        assert!(uploaded.recovered);
        assert_eq!(server.steps().iter().filter(|step| *step == "FinalizeArtifact").count(), 1);
    }
    // The same with a listing that gives no digest: the bytes are read back.
    let server = Server::start(Kind::Act);
    server.fault(4, Fault::Lost);
    assert!(run(&server, &request(&zip), Timeouts::default()).result.unwrap().recovered);
}

#[test]
fn a_finalize_that_was_refused_with_nothing_stored_is_tried_again() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(Kind::Github);
    server.fault(4, Fault::Answer(403, "", "Error from intermediary with HTTP status code 403"));
    let uploaded = run(&server, &request(&zip_of(folder.path(), 10)), Timeouts::default()).result.unwrap();
    assert!(!uploaded.recovered);
}

#[test]
fn a_machine_without_a_way_to_the_service_is_told_which_addresses_it_needs() {
    let folder = tempfile::tempdir().unwrap();
    let zip = zip_of(folder.path(), 10);
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let service = assay_gates::github::artifact::Service::new(
        &format!("http://{closed}/"),
        &token(),
        Timeouts::default(),
    );
    let clock = crate::harness::TestClock::default();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let error = runtime
        .block_on(assay_gates::github::artifact::upload(
            &service.unwrap(),
            &request(&zip),
            &assay_gates::github::artifact::Backoff::default(),
            &clock,
            &mut |_| {},
        ))
        .unwrap_err();
    assert_eq!(error.code(), Code::ArtifactGaveUp);
    assert_eq!(clock.0.lock().unwrap().len(), 6, "a refused connection is tried again too");
    assert!(error.advice().unwrap().contains("blob.core.windows.net"));
}
