//! What goes over the wire when nothing goes wrong, and what the service's own rules lead to.

use crate::harness::{NAME, request, run, token, zip_of};
use crate::server::{Fault, Kind, SIGNATURE, Server};
use assay_gates::error::Code;
use assay_gates::files::sha256;
use assay_gates::github::artifact::{Notice, Proof, Timeouts};
use serde_json::json;

const MIB: usize = 1024 * 1024;

#[test]
fn a_small_zip_takes_the_steps_of_the_official_client_and_a_look_before_and_after() {
    let folder = tempfile::tempdir().unwrap();
    let zip = zip_of(folder.path(), 1000);
    let server = Server::start(Kind::Github);
    let mut wanted = request(&zip);
    wanted.retention_days = Some(30);
    let outcome = run(&server, &wanted, Timeouts::default());
    let uploaded = outcome.result.as_ref().unwrap();
    assert_eq!(
        server.steps(),
        ["ListArtifacts", "CreateArtifact", "block", "blocklist", "FinalizeArtifact", "ListArtifacts"]
    );
    let requests = server.requests();
    assert_eq!(
        requests[1].json(),
        json!({"workflow_run_backend_id": "11", "workflow_job_run_backend_id": "22", "name": NAME,
            "expires_at": "2026-12-21T10:00:00.000Z", "version": 4})
    );
    let digest = sha256(&std::fs::read(&zip).unwrap()).to_string();
    assert_eq!(
        requests[4].json(),
        json!({"workflow_run_backend_id": "11", "workflow_job_run_backend_id": "22", "name": NAME,
            "size": "1000", "hash": digest})
    );
    for call in [&requests[1], &requests[4]] {
        assert_eq!(call.headers["content-type"], "application/json");
        assert_eq!(call.headers["authorization"], format!("Bearer {}", token().reveal()));
    }
    for put in &requests[2..4] {
        assert!(!put.headers.contains_key("authorization"), "a signed address is its own key");
        assert!(put.headers.contains_key("content-length") && !put.headers.contains_key("transfer-encoding"));
    }
    assert_eq!(requests[3].headers["x-ms-blob-content-type"], "application/zip");
    assert_eq!(server.stored(NAME).unwrap(), std::fs::read(&zip).unwrap());
    assert_eq!((uploaded.proof, uploaded.recovered), (Proof::Listing, false));
    assert!(outcome.slept.is_empty());
    assert!(outcome.notices.contains(&Notice::Mask(SIGNATURE.to_owned())));
}

#[test]
fn a_large_zip_goes_in_blocks_of_8_mib_one_after_another_with_ids_of_one_length() {
    let folder = tempfile::tempdir().unwrap();
    let zip = zip_of(folder.path(), 8 * MIB + 5);
    for kind in [Kind::Github, Kind::Act] {
        let server = Server::start(kind);
        let outcome = run(&server, &request(&zip), Timeouts::default());
        let proof = outcome.result.unwrap().proof;
        assert_eq!(proof, if kind == Kind::Github { Proof::Listing } else { Proof::Download });
        assert_eq!(server.stored(NAME).unwrap(), std::fs::read(&zip).unwrap());
        let requests = server.requests();
        let blocks: Vec<_> = requests.iter().filter(|one| one.step() == "block").collect();
        assert_eq!(blocks.iter().map(|one| one.length).collect::<Vec<_>>(), [8 * MIB as u64, 5]);
        let ids: std::collections::BTreeSet<&str> =
            blocks.iter().map(|one| one.query.split("blockid=").nth(1).unwrap()).collect();
        assert_eq!(ids.len(), 2);
        assert_eq!(ids.iter().map(|id| id.len()).collect::<std::collections::BTreeSet<_>>().len(), 1);
    }
}

#[test]
fn two_uploads_never_share_a_block_id() {
    let folder = tempfile::tempdir().unwrap();
    let zip = zip_of(folder.path(), 10);
    let ids: Vec<String> = (0..2)
        .map(|_| {
            let server = Server::start(Kind::Github);
            run(&server, &request(&zip), Timeouts::default()).result.unwrap();
            server.requests().iter().find(|one| one.step() == "block").unwrap().query.clone()
        })
        .collect();
    assert_ne!(ids[0], ids[1]);
}

#[test]
fn a_second_upload_of_a_name_is_refused_by_name_and_overwrite_replaces_it_on_every_server() {
    let folder = tempfile::tempdir().unwrap();
    for kind in [Kind::Github, Kind::Act] {
        let zip = zip_of(folder.path(), 100);
        let server = Server::start(kind);
        run(&server, &request(&zip), Timeouts::default()).result.unwrap();
        let again = zip_of(folder.path(), 200);
        let error = run(&server, &request(&again), Timeouts::default()).result.unwrap_err();
        assert_eq!(error.code(), Code::ArtifactExists);
        assert!(
            error.to_string().contains(NAME) && error.advice().unwrap().contains("--overwrite"),
            "{error}"
        );
        assert_eq!(server.stored(NAME).unwrap().len(), 100, "the first stays");
        let mut replace = request(&again);
        replace.overwrite = true;
        run(&server, &replace, Timeouts::default()).result.unwrap();
        assert_eq!(server.stored(NAME).unwrap().len(), 200);
        assert!(server.steps().contains(&"DeleteArtifact".to_owned()));
    }
}

#[test]
fn overwrite_without_an_earlier_artifact_is_a_plain_upload() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(Kind::Act);
    let mut replace = request(&zip_of(folder.path(), 10));
    replace.overwrite = true;
    assert!(run(&server, &replace, Timeouts::default()).result.is_ok());
}

#[test]
fn a_stored_artifact_that_is_not_the_zip_is_an_error_of_evidence() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(Kind::Github);
    server.fault(3, Fault::Corrupt);
    let outcome = run(&server, &request(&zip_of(folder.path(), 100)), Timeouts::default());
    let error = outcome.result.unwrap_err();
    assert_eq!((error.code(), error.exit().code()), (Code::ArtifactReadBack, 14));
}

#[test]
fn what_the_service_refuses_for_good_is_told_once_with_its_own_words() {
    let folder = tempfile::tempdir().unwrap();
    let zip = zip_of(folder.path(), 100);
    for (status, body, said) in [
        (
            403,
            r#"{"code":"resource_exhausted","msg":"insufficient usage to create artifact"}"#,
            "insufficient usage",
        ),
        (
            429,
            r#"{"code":"resource_exhausted","msg":"insufficient usage to create artifact"}"#,
            "insufficient usage",
        ),
        (400, r#"{"code":"invalid_argument","msg":"this job has 500 artifacts"}"#, "500 artifacts"),
        (413, r#"Quota exceeded"#, "Quota exceeded"),
    ] {
        let server = Server::start(Kind::Github);
        server.fault(1, Fault::Answer(status, "", body));
        let outcome = run(&server, &request(&zip), Timeouts::default());
        let error = outcome.result.unwrap_err();
        assert_eq!((error.code(), error.exit().code()), (Code::ArtifactRefused, 13), "{status}");
        assert!(error.message().contains(said), "{error}");
        assert_eq!(server.steps(), ["ListArtifacts", "CreateArtifact"]);
    }
}
