use super::*;

fn catalog() -> Catalog {
    Catalog::builtin().unwrap()
}

#[test]
fn the_most_specific_pattern_decides() {
    let catalog = catalog();
    let budget = |model: &str| match &catalog.traits(model).thinking {
        Thinking::Budget { min, max, can_be_off } => (*min, *max, *can_be_off),
        other @ (Thinking::None | Thinking::Levels(_)) => panic!("{model}: {other:?}"),
    };
    assert_eq!(budget("gemini-2.5-pro"), (128, 32768, false));
    assert_eq!(budget("gemini-2.5-flash-preview-09-2025"), (1, 24576, true));
    assert_eq!(budget("gemini-2.5-flash-lite"), (512, 24576, true));
    assert_eq!(catalog.traits("gemini-2.5-flash-image").thinking, Thinking::None);
    assert_eq!(catalog.traits("gemini-2.0-flash-lite-001").thinking, Thinking::None);
}

#[test]
fn gemini_4_decodes_long_and_thinks_by_level() {
    let catalog = catalog();
    let neon = catalog.traits("gemini-4-neon");
    assert!(neon.long_decode && !neon.sampling && neon.signatures);
    assert_eq!(neon.thinking, Thinking::Levels(vec![Level::Low, Level::Medium, Level::High, Level::Xhigh]));
    assert_eq!(
        catalog.traits("gemini-4-argon").thinking,
        Thinking::Levels(vec![Level::Low, Level::Medium, Level::High])
    );
}

#[test]
fn arguments_are_streamed_by_gemini_3_but_not_by_every_one() {
    let streams = |model: &str| catalog().traits(model).streams_arguments;
    for model in ["gemini-3-flash-preview", "gemini-3.5-flash-lite", "gemini-3.8-flash", "gemini-4-argon"] {
        assert!(streams(model), "{model}");
    }
    for model in
        ["gemini-2.0-flash", "gemini-2.5-pro", "gemini-3.1-flash-lite", "gemini-3.1-flash-lite-preview"]
    {
        assert!(!streams(model), "{model}");
    }
}

#[test]
fn moving_aliases_behave_as_what_they_point_to() {
    let catalog = catalog();
    assert_eq!(catalog.traits("gemini-flash-latest"), catalog.traits("gemini-3.8-flash"));
    assert_eq!(catalog.traits("gemini-flash-lite-latest"), catalog.traits("gemini-3.5-flash-lite"));
    assert_eq!(catalog.traits("gemini-pro-latest"), catalog.traits("gemini-3.1-pro-preview"));
    assert!(!catalog.traits("gemini-3.7-flash").prefill);
    assert!(catalog.traits("gemini-3.5-flash").prefill);
}

#[test]
fn unknown_models_get_defaults() {
    assert_eq!(catalog().traits("somebody-elses-model"), &Traits::default());
    assert!(catalog().traits("gemini-9-unobtainium").call_ids);
}

#[test]
fn an_override_changes_only_what_it_names() {
    let text = "[[family]]\nmodels = [\"gemini-3.8-flash\"]\nsampling = true\n\
                [[model]]\nid = \"gemini-9\"\nreleased = \"2027-01-01\"\n";
    let changed = catalog().with_override(text).unwrap();
    let before = catalog().traits("gemini-3.8-flash").clone();
    assert_eq!(changed.traits("gemini-3.8-flash"), &Traits { sampling: true, ..before });
    assert!(changed.models().any(|m| m.id == "gemini-9" && m.created == Some(1_798_761_600)));
}

#[test]
fn a_bad_override_names_the_line() {
    let error = catalog().with_override("[[family]]\nmodels = []\nsamplign = true\n").unwrap_err();
    assert!(error.message().contains("line 3") && error.message().contains("samplign"), "{error}");
    let error = catalog().with_override("[[family]]\nmodels = [\"x\"]\nthinking = \"levels\"\n").unwrap_err();
    assert!(error.message().contains("contradicts"), "{error}");
}

#[test]
fn every_listed_model_is_described_and_path_safe() {
    let catalog = catalog();
    assert!(catalog.models().count() > 15);
    for model in catalog.models() {
        assert_eq!(model_id(&model.id).unwrap(), model.id);
        assert!(catalog.families.iter().any(|(pattern, _)| pattern.matches(&model.id)), "{}", model.id);
    }
}

#[test]
fn model_names_are_bared() {
    for name in ["gemini-x", "models/gemini-x", "google/gemini-x", "publishers/google/models/gemini-x"] {
        assert_eq!(model_id(name).unwrap(), "gemini-x");
    }
    assert_eq!(model_id("tunedModels/mine-1").unwrap(), "tunedModels/mine-1");
    assert_eq!(model_id("endpoints/123").unwrap(), "endpoints/123");
    assert_eq!(model_id("text-embedding-005@latest").unwrap(), "text-embedding-005@latest");
}

#[test]
fn dangerous_model_names_are_refused() {
    let long = "a".repeat(257);
    for name in [
        "",
        "models/",
        "../x",
        "a/b",
        "a..b",
        "x?y",
        "x&y",
        "x#y",
        "x%2f",
        "é",
        "a b",
        ".",
        "tunedModels/",
        "tunedModels/a/b",
        "/x",
        "x/",
        "endpoints/.",
        long.as_str(),
    ] {
        let error = model_id(name).unwrap_err();
        assert_eq!((error.kind(), error.param()), (Kind::Invalid, Some("model")), "{name}");
    }
}

#[test]
fn stars_match_anywhere() {
    let fits = |pattern: &str, name: &str| Pattern::new(pattern).matches(name);
    assert!(fits("*", "") && fits("*", "anything"));
    assert!(fits("gemini-*-flash*", "gemini-3.8-flash-tts"));
    assert!(fits("a*a", "aa") && !fits("a*a", "a"));
    assert!(!fits("gemini-*", "gemma-4") && !fits("x", "xy"));
    assert!(fits("*-latest", "gemini-pro-latest"));
}

#[test]
fn what_was_found_is_kept_to_an_end_and_a_clone_forgets() {
    let found = Found::default();
    assert_eq!(found.of("a", || 1), 1);
    assert_eq!(found.of("a", || 2), 1);
    let other = Found::clone(&found);
    assert_eq!(other.of("a", || 2), 2);
    for name in 0..1000 {
        found.of(&name.to_string(), || name);
    }
    assert_eq!(found.of("999", || 7), 7);
    assert_eq!(found.of("a", || 2), 1);
}
