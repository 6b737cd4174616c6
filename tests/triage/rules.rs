//! The runbook is whole: every class has a page, a rule and an example, every page a class, every code a class.

use assay_gates::error::Code;
use assay_gates::triage::{Case, EMBEDDED, Fact, Kind, PAGES, Place, Rules, diagnose, explain, page, schema};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

fn repository() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn rules() -> &'static Rules {
    static RULES: OnceLock<Rules> = OnceLock::new();
    RULES.get_or_init(|| Rules::embedded().unwrap())
}

#[test]
fn every_class_has_a_page_with_symptoms_decision_advice_and_example() {
    for class in rules().classes() {
        let text = page(&class.page).unwrap_or_else(|| panic!("{}: no page {}", class.id, class.page));
        for part in
            [&*format!("`{}`", class.id), "## Symptoms", "## What decides", "## What to do", "## Example"]
        {
            assert!(text.contains(part), "{}: {} lacks {part}", class.id, class.page);
        }
        assert!(explain(rules(), &class.id).unwrap().contains(text));
    }
}

#[test]
fn every_page_belongs_to_a_class_and_is_embedded() {
    let used: BTreeSet<String> = rules().classes().iter().map(|class| class.page.clone()).collect();
    let embedded: BTreeSet<String> = PAGES.iter().map(|(name, _)| (*name).to_owned()).collect();
    let there: BTreeSet<String> = std::fs::read_dir(repository().join("runbook"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .filter(|name| name.ends_with(".md") && !["README.md", "threat-model.md"].contains(&name.as_str()))
        .collect();
    assert_eq!(used, embedded, "classes in runbook/rules.yaml against PAGES in src/triage/runbook.rs");
    assert_eq!(there, embedded, "files in runbook/ against PAGES in src/triage/runbook.rs");
}

#[test]
fn the_example_of_every_class_is_classified_as_that_class() {
    let rules = rules();
    for class in rules.classes() {
        let example = &class.example;
        let place = Place { step: example.step.clone(), ..Place::default() };
        let fact = Fact::new(example.fact, &*example.key, &*example.value, place);
        let case = Case { facts: vec![fact], ..Case::default() };
        assert_eq!(diagnose(rules, &case).unwrap().class, class.id, "{example:?}");
    }
}

#[test]
fn every_error_code_belongs_to_exactly_one_class() {
    let rules = rules();
    let mut wrong = Vec::new();
    for code in Code::ALL {
        let classes: Vec<_> =
            rules.classes().iter().filter(|class| class.codes.iter().any(|c| c == code.name())).collect();
        match classes.as_slice() {
            [class] => assert!(explain(rules, code.name()).unwrap().contains(&class.id)),
            [] => wrong.push(format!(
                "{} ({}) is in no class: add it to `codes:` of the class in runbook/rules.yaml whose page helps with it",
                code.name(),
                code.title()
            )),
            many => wrong.push(format!("{} is in {} classes", code.name(), many.len())),
        }
    }
    let known: BTreeSet<&str> = Code::ALL.iter().map(|code| code.name()).collect();
    for class in rules.classes() {
        for code in class.codes.iter().filter(|code| !known.contains(code.as_str())) {
            wrong.push(format!("{}: {code} is no code any more", class.id));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_schema_of_the_rules_is_the_one_in_the_proof_pack_folder() {
    let path = repository().join("proof-pack/schemas/triage_rules.v0.json");
    let now = assay_gates::files::pretty_sorted(&schema()).unwrap();
    if std::env::var_os("ASSAY_GATES_BLESS").is_some() {
        std::fs::write(&path, &now).unwrap();
    }
    let there = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(there, now, "run ASSAY_GATES_BLESS=1 cargo test --test triage schema");
    let rules: serde_json::Value = serde_yaml::from_str(EMBEDDED).unwrap();
    let errors: Vec<String> = jsonschema::validator_for(&serde_json::to_value(schema()).unwrap())
        .unwrap()
        .iter_errors(&rules)
        .map(|e| e.to_string())
        .collect();
    assert!(errors.is_empty(), "{errors:?}");
}

#[test]
fn a_genuine_failure_vetoes_every_infrastructure_verdict() {
    let rules = rules();
    let fact = |class: &assay_gates::triage::Class| {
        let example = &class.example;
        let place = Place { step: example.step.clone(), ..Place::default() };
        Fact::new(example.fact, &*example.key, &*example.value, place)
    };
    for infrastructure in rules.classes().iter().filter(|class| class.kind == Kind::Infrastructure) {
        for genuine in rules.classes().iter().filter(|class| class.kind == Kind::Finding) {
            let case = Case { facts: vec![fact(infrastructure), fact(genuine)], ..Case::default() };
            let diagnosis = diagnose(rules, &case).unwrap();
            assert_ne!(diagnosis.kind, Kind::Infrastructure, "{} with {}", genuine.id, infrastructure.id);
            assert_ne!(diagnosis.rerun.answer, assay_gates::triage::Rerun::Allowed);
        }
    }
}

#[test]
fn an_infrastructure_class_in_front_of_a_finding_is_refused() {
    let moved = EMBEDDED.replacen("kind: finding", "kind: infrastructure", 1);
    let error = Rules::parse(&moved, "rules.yaml").unwrap_err();
    assert!(error.message().contains("infrastructure never outranks"), "{error}");
}

#[test]
fn an_unknown_key_in_the_rules_names_its_place_and_the_nearest_key() {
    let error = Rules::parse(&EMBEDDED.replacen("rerun:", "reruns:", 1), "rules.yaml").unwrap_err();
    assert!(error.place().is_some_and(|place| place.starts_with("rules.yaml:")), "{error}");
    assert_eq!(error.advice(), Some("did you mean `rerun`?"));
}

#[test]
fn a_case_without_facts_is_unknown_and_no_rerun() {
    let diagnosis = diagnose(rules(), &Case::default()).unwrap();
    assert_eq!((diagnosis.class.as_str(), diagnosis.evidence), ("unknown", None));
    assert_eq!(diagnosis.rerun.answer, assay_gates::triage::Rerun::Refused);
    assert_eq!((diagnosis.gate.as_str(), diagnosis.run.as_str()), ("unknown", "unknown"));
    assert!(Path::new(&diagnosis.next.page).extension().is_some());
}
