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
    metrics.attempt("studio", "gemini-x", "200");
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
        r#"gemway_upstream_attempts_total{code="200",model="gemini-x",site="studio"} 1"#.to_owned(),
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
        let histogram = matches!(form, Form::Seconds | Form::Instants);
        assert!(!histogram || name.ends_with("_seconds"), "{name}");
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
