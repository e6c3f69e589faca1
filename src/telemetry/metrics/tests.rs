use super::*;

fn finished() -> Finished<'static> {
    Finished {
        route: "chat",
        method: "POST",
        status: 200,
        outcome: "ok",
        error: None,
        model: None,
        provider: Some("gcp.gemini"),
        stream: true,
        duration: Duration::from_millis(12),
        first_token: Some(Duration::from_millis(5)),
        overhead: Some(Duration::from_micros(80)),
        before: Some(Duration::from_micros(50)),
        shed: None,
        reserved: Some(20),
        upstream: Duration::from_millis(4),
        usage: Usage::default(),
    }
}

#[test]
fn a_finished_request_shows() {
    let metrics = Metrics::new();
    let mut usage = Usage { input: 7, output: 3, thoughts: 2, odd_end: true, ..Usage::default() };
    usage.input_by[Modality::Image] = 5;
    let held = metrics.in_flight();
    metrics.attempt("studio", "gemini-x", Some(200), None);
    metrics.attempt("studio", "gemini-x", None, Some("timeout"));
    metrics.retry("studio", "timeout");
    metrics.finished(&Finished { usage, ..finished() });
    let gone = Finished { outcome: "client_cancelled", provider: None, ..finished() };
    metrics.finished(&gone);
    metrics.finished(&Finished { outcome: "failed", error: Some("timeout"), ..finished() });
    let text = String::from_utf8(metrics.render()).unwrap();
    let gen_ai = |name: &str, modality: &str| {
        format!(
            r#"gen_ai_client_inference_usage_{name}_tokens_total{{gen_ai_operation_name="chat",gen_ai_provider_name="gcp.gemini",gen_ai_request_model="unresolved",gen_ai_token_modality="{modality}"}}"#
        )
    };
    for line in [
        r#"gemway_http_requests_total{code="200",method="POST",outcome="ok",route="chat"} 1"#.to_owned(),
        r#"gemway_tokens_total{kind="input",model="unresolved"} 7"#.to_owned(),
        r#"gemway_unknown_finish_reasons_total{model="unresolved"} 1"#.to_owned(),
        r#"gemway_upstream_attempts_total{code="200",model="gemini-x",reason="",site="studio"} 1"#.to_owned(),
        r#"gemway_upstream_attempts_total{code="none",model="gemini-x",reason="timeout",site="studio"} 1"#
            .to_owned(),
        r#"gemway_upstream_retries_total{reason="timeout",site="studio"} 1"#.to_owned(),
        r#"gemway_overhead_seconds_sum{phase="request",route="chat"} 0.00015"#.to_owned(),
        r#"gemway_overhead_seconds_count{phase="response",route="chat"} 3"#.to_owned(),
        // Twelve were used where twenty had been reserved.
        r#"gemway_ratelimit_estimate_error_ratio_bucket{model="unresolved",le="-0.5"} 1"#.to_owned(),
        r#"gemway_time_to_first_token_overhead_seconds_count{model="unresolved"} 3"#.to_owned(),
        r#"gemway_client_cancelled_total{phase="request",route="chat"} 1"#.to_owned(),
        r#"gemway_stream_truncated_total{reason="timeout"} 1"#.to_owned(),
        "gemway_inflight_requests 1".to_owned(),
        "gemway_build_info".to_owned(),
        gen_ai("input", "image") + " 5",
        gen_ai("input", "text") + " 2",
        gen_ai("output", "text") + " 5",
        gen_ai("reasoning_output", "text") + " 2",
    ] {
        assert!(text.contains(&line), "{line} is missing in\n{text}");
    }
    drop(held);
    assert_eq!(metrics.in_flight_now(), 0);
}

#[test]
fn names_follow_the_conventions() {
    for Family { name, form, help, .. } in ALL {
        assert_eq!(name.ends_with("_total"), *form == Form::Counter, "{name}");
        let timed = matches!(form, Form::Seconds | Form::Instants);
        assert!(!timed || name.ends_with("_seconds"), "{name}");
        assert!(*form != Form::Ratio || name.ends_with("_ratio"), "{name}");
        assert!(help.ends_with('.') && !name.contains("_ms"), "{name}");
    }
}

#[test]
fn the_readme_lists_every_metric() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/README.md");
    let readme = std::fs::read_to_string(path).unwrap();
    let (before, rest) = readme.split_once("<!-- metrics -->\n").expect("the README has the mark");
    let (listed, after) = rest.split_once("<!-- end of metrics -->").expect("and its end");
    if std::env::vars_os().any(|(name, _)| name == "BLESS") {
        let blessed = [before, "<!-- metrics -->\n", &table(), "<!-- end of metrics -->", after].concat();
        return std::fs::write(path, blessed).unwrap();
    }
    assert_eq!(listed, table(), "BLESS=1 writes the README's table of metrics anew");
}

#[test]
fn sites_show_as_they_stand_and_go_when_they_are_gone() {
    let metrics = Metrics::new();
    let site = Site {
        name: "studio",
        in_flight: 3,
        limit: 32,
        half_open: 1,
        open: 2,
        cooling: 4,
        refused: false,
        denied: 5,
    };
    metrics.sites([site, Site { name: "other", refused: true, ..site }].into_iter());
    let text = String::from_utf8(metrics.render()).unwrap();
    for line in [
        r#"gemway_concurrency_limit{site="studio"} 32"#,
        r#"gemway_site_inflight_calls{site="studio"} 3"#,
        r#"gemway_site_breakers{site="studio",state="half_open"} 1"#,
        r#"gemway_site_breakers{site="studio",state="open"} 2"#,
        r#"gemway_site_cooling_models{site="studio"} 4"#,
        r#"gemway_retry_budget_exhausted_total{site="studio"} 5"#,
        r#"gemway_key_pool_keys{state="cooling"} 1"#,
        r#"gemway_key_pool_keys{state="invalid"} 1"#,
        r#"gemway_key_pool_keys{state="ok"} 0"#,
    ] {
        assert!(text.contains(line), "{line} is missing in\n{text}");
    }
    metrics.sites([Site { denied: 6, ..site }].into_iter());
    let text = String::from_utf8(metrics.render()).unwrap();
    assert!(text.contains(r#"gemway_retry_budget_exhausted_total{site="studio"} 6"#), "{text}");
    assert!(!text.contains("other"), "{text}");
}

#[test]
fn the_configuration_in_force_is_the_only_one_told() {
    let metrics = Metrics::new();
    metrics.configured("aa");
    metrics.reloaded("bb");
    let text = String::from_utf8(metrics.render()).unwrap();
    assert!(text.contains(r#"gemway_config_info{hash="bb"} 1"#) && !text.contains(r#"hash="aa""#), "{text}");
}
