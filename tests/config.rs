//! Configuration as an operator meets it: files, variables, flags, and what each mistake says.

#![expect(clippy::unwrap_used, reason = "the helpers of tests may fail loudly too")]

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use gemway::cli;
use gemway::config::{Config, ConfigError, GoogleCredentials, KeyProof, LogFormat, Overrides, SiteKind};
use gemway::keys::Keys;
use secrecy::ExposeSecret;

const EXAMPLE: &str = include_str!("../deploy/config.example.toml");

/// Loads `file` under `env`, as `gw.toml`; `secret.txt` and the example's certificates exist as well.
fn load_with(file: &str, env: &[(&str, &str)], flags: Overrides) -> Result<Config, ConfigError> {
    let flags = Overrides { config: (!file.is_empty()).then(|| PathBuf::from("gw.toml")), ..flags };
    Config::load(&flags, &variables(env), &files(file))
}

fn variables(env: &[(&str, &str)]) -> impl Fn(&str) -> Option<String> {
    let env: BTreeMap<String, String> =
        env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    move |name| env.get(name).cloned()
}

fn files(file: &str) -> impl Fn(&Path) -> io::Result<String> {
    let file = file.to_owned();
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let (cert, key) = (made.cert.pem(), made.signing_key.serialize_pem());
    move |path| match path.to_str() {
        Some("gw.toml") => Ok(file.clone()),
        Some("/etc/gemway/tls.crt" | "/etc/gemway/ca.crt") => Ok(cert.clone()),
        Some("/etc/gemway/tls.key") => Ok(key.clone()),
        Some("secret.txt") => Ok("sk-from-file\n".to_owned()),
        _ => Err(io::ErrorKind::NotFound.into()),
    }
}

fn load(file: &str, env: &[(&str, &str)]) -> Result<Config, ConfigError> {
    load_with(file, env, Overrides::default())
}

fn complaint(file: &str) -> String {
    load(file, &[]).unwrap_err().to_string()
}

#[test]
fn nothing_at_all_is_the_simulator_on_loopback() {
    let config = load("", &[]).unwrap();
    assert!(config.simulated() && config.warnings().is_empty());
    assert_eq!(config.listen.to_string(), "127.0.0.1:8080");
    assert_eq!(config.admin_listen.to_string(), "127.0.0.1:9090");
    assert_eq!(config.server.max_body_bytes, 32 * 1024 * 1024);
    assert_eq!(config.server.drain_timeout, Duration::from_secs(570));
    assert_eq!((&*config.routes[0].models[0], &*config.routes[0].sites[0]), ("*", "simulator"));
}

#[test]
fn the_example_is_valid_and_complete() {
    let env = [("GEMINI_API_KEY", "g"), ("TEAM_A_KEY", "t"), ("GEMWAY_ADMIN_KEY", "o")];
    let config = load(EXAMPLE, &env).unwrap();
    assert_eq!(config.sites.len(), 3);
    assert_eq!(config.keys[0].requests_per_minute, Some(60));
    assert!(config.warnings().is_empty(), "{:?}", config.warnings());
    // What is commented out is valid as well, and its values are the defaults.
    let is_key = |rest: &str| {
        let name = |k: &str| !k.is_empty() && k.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
        rest.starts_with('[') || rest.split_once(" = ").is_some_and(|(k, _)| name(k))
    };
    let uncommented =
        EXAMPLE.lines().map(|line| line.strip_prefix("# ").filter(|rest| is_key(rest)).unwrap_or(line));
    let all = uncommented.collect::<Vec<_>>().join("\n");
    let full = load(&all, &env).unwrap();
    assert!(full.ledger.is_some() && full.store.is_some() && full.limits.redis.is_some());
    assert!(full.tls.as_ref().is_some_and(|tls| tls.client_ca.is_some()));
    assert_eq!(full.server, config.server);
    assert_eq!(full.upstream, config.upstream);
    assert_eq!(full.simulator, config.simulator);
    assert_eq!(full.log, config.log);
    assert_eq!((&full.listen, &full.admin_listen), (&config.listen, &config.admin_listen));
    assert!(full.warnings().is_empty(), "{:?}", full.warnings());
}

#[test]
fn unknown_keys_are_placed_and_a_name_is_suggested() {
    assert_eq!(
        complaint("listen = \"127.0.0.1:1\"\nlistn = 1\n"),
        "gw.toml:2:1: unknown key `listn`, did you mean `listen`?"
    );
    let nested =
        complaint("[[sites]]\nname = \"a\"\nkind = \"simulator\"\n[[keys]]\nname = \"a\"\n  secrt = \"x\"\n");
    assert_eq!(nested, "gw.toml:6:3: unknown key `secrt`, did you mean `secret`?");
    let variant = complaint("[[sites]]\nname = \"a\"\nkind = \"gemini-api\"\n");
    assert_eq!(variant, "gw.toml:3:8: unknown value `gemini-api`, did you mean `gemini_api`?");
    let strange = complaint("[log]\nzzzzzzzz = 1\n");
    assert_eq!(strange, "gw.toml:2:1: unknown key `zzzzzzzz`, known are: format, level, share");
}

#[test]
fn wrong_values_are_placed() {
    for (file, place, words) in [
        ("listen = \"nowhere\"\n", "gw.toml:1:10: ", "is not an address"),
        ("strict = \"yes\"\n", "gw.toml:1:10: ", "invalid type"),
        ("[server]\ndrain_timeout = \"soon\"\n", "gw.toml:2:17: ", "is not a duration"),
        ("x = = 1\n", "gw.toml:1:", ""),
        ("[[sites]]\nname = \"a\"\nkind = \"gemini_api\"\n", "gw.toml:2:8: ", "needs an api_key"),
        ("[[sites]]\nname = \"a\"\nkind = \"vertex\"\n", "gw.toml:2:8: ", "needs a project"),
        (
            "[[sites]]\nname = \"a\"\nkind = \"gemini_api\"\napi_key = \"env:NOPE\"\n",
            "gw.toml:4:11: ",
            "NOPE is not set",
        ),
        (
            "[[sites]]\nname = \"a\"\nkind = \"gemini_api\"\napi_key = \"file:nope\"\n",
            "gw.toml:4:11: ",
            "cannot read",
        ),
        (
            "[[sites]]\nname = \"a\"\nkind = \"simulator\"\nproject = \"p\"\n",
            "gw.toml:2:8: ",
            "`project` means nothing",
        ),
        (
            "[[sites]]\nname = \"a\"\nkind = \"vertex\"\nproject = \"p\"\nlocation = \"us/../x\"\n",
            "gw.toml:5:12: ",
            "is not a location",
        ),
        (
            "[[sites]]\nname = \"studio\"\nkind = \"simulator\"\n[[routes]]\nmodels = [\"*\"]\nsites = [\"studoi\"]\n",
            "gw.toml:6:10: ",
            "did you mean `studio`?",
        ),
        ("[[keys]]\nname = \"a\"\nhash = \"sha256:12\"\n", "gw.toml:3:8: ", "64 hexadecimal"),
        ("[[keys]]\nname = \"a\"\n", "gw.toml:2:8: ", "either a secret or a hash"),
        (
            "[[keys]]\nname = \"a\"\nsecret = \"x\"\nbudget = { per = \"day\" }\n",
            "gw.toml:4:10: ",
            "either usd or tokens",
        ),
    ] {
        let text = complaint(file);
        assert!(text.starts_with(place) && text.contains(words), "{file}\n{text}");
    }
    let missing = load_with("", &[("GEMWAY_CONFIG", "absent.toml")], Overrides::default()).unwrap_err();
    assert!(missing.to_string().contains("absent.toml"));
}

#[test]
fn flags_beat_the_environment_and_that_beats_the_file() {
    let file = "listen = \"127.0.0.1:1\"\n[log]\nformat = \"pretty\"\nlevel = \"warn\"\n";
    let env = [
        ("GEMWAY_LISTEN", "localhost:2"),
        ("GEMWAY_LOG_FORMAT", "JSON"),
        ("GEMWAY_LOG", "debug"),
        ("GEMWAY_STRICT", "1"),
        ("GEMWAY_ADMIN_LISTEN", " "),
    ];
    assert_eq!(load(file, &[]).unwrap().listen.to_string(), "127.0.0.1:1");
    let config = load(file, &env).unwrap();
    assert_eq!(config.listen.to_string(), "127.0.0.1:2");
    assert_eq!((config.log.format, &*config.log.level), (LogFormat::Json, "debug"));
    assert!(config.strict);
    assert_eq!(config.admin_listen.to_string(), "127.0.0.1:9090");
    let flags = Overrides {
        listen: Some("unix:/run/gw.sock".to_owned()),
        log_format: Some(LogFormat::Auto),
        ..Overrides::default()
    };
    let config = load_with(file, &env, flags).unwrap();
    assert_eq!(config.listen.to_string(), "unix:/run/gw.sock");
    assert_eq!(config.log.format, LogFormat::Auto);
    assert!(load(file, &[("GEMWAY_STRICT", "perhaps")]).is_err());
}

#[test]
fn other_machines_need_keys_or_an_explicit_word() {
    let open = "listen = \"0.0.0.0:8080\"\n";
    assert!(complaint(open).contains("--insecure-no-auth"));
    assert!(load("listen = \"[::1]:1\"\n", &[]).is_ok());
    assert!(load("listen = \"unix:/tmp/x\"\n", &[]).is_ok());
    let keyed = load(open, &[("GEMWAY_API_KEYS", "sk-1, sk-2,,")]).unwrap();
    let names: Vec<&str> = keyed.keys.iter().map(|key| &*key.name).collect();
    assert_eq!(names, ["env-1", "env-2"]);
    assert!(keyed.warnings().is_empty());
    let insecure = Overrides { insecure_no_auth: true, ..Overrides::default() };
    assert_eq!(load_with(open, &[], insecure).unwrap().warnings().len(), 1);
}

#[test]
fn secrets_come_from_three_places() {
    let file = "[[keys]]\nname = \"a\"\nsecret = \"env:A\"\n[[keys]]\nname = \"b\"\nsecret = \"file:secret.txt\"\n\
                [[keys]]\nname = \"c\"\nsecret = \"literal\"\n";
    let config = load(file, &[("A", "sk-a")]).unwrap();
    let secrets: Vec<&str> = config
        .keys
        .iter()
        .map(|key| match &key.proof {
            KeyProof::Secret(secret) => secret.expose_secret(),
            KeyProof::Sha256(_) => "",
        })
        .collect();
    assert_eq!(secrets, ["sk-a", "sk-from-file", "literal"]);
    let printed = format!("{config:?}");
    assert!(secrets.iter().all(|secret| !printed.contains(secret)), "{printed}");
}

/// The one site that the environment makes.
fn site(env: &[(&str, &str)]) -> SiteKind {
    load("", env).unwrap().sites.remove(0).kind
}

#[test]
fn googles_own_variables_make_a_site() {
    let both = [("GEMINI_API_KEY", "gemini"), ("GOOGLE_API_KEY", "google")];
    let SiteKind::GeminiApi { base_url, api_key, .. } = site(&both) else { panic!() };
    assert_eq!(base_url, "https://generativelanguage.googleapis.com");
    assert_eq!(api_key.expose_secret(), "google");
    let SiteKind::GeminiApi { base_url, .. } =
        site(&[("GEMINI_API_KEY", "k"), ("GOOGLE_GEMINI_BASE_URL", "http://127.0.0.1:9/")])
    else {
        panic!()
    };
    assert_eq!(base_url, "http://127.0.0.1:9");
    // A written site makes Google's variables irrelevant.
    let written = "[[sites]]\nname = \"s\"\nkind = \"simulator\"\n";
    assert!(load(written, &both).unwrap().simulated());
    assert!(load("", &[("GEMINI_API_KEY", "k"), ("GOOGLE_GEMINI_BASE_URL", "ftp://x")]).is_err());
}

#[test]
fn vertex_by_variables() {
    let vertex = ("GOOGLE_GENAI_USE_VERTEXAI", "true");
    let SiteKind::Vertex { base_url, project, location, credentials, .. } =
        site(&[vertex, ("GOOGLE_CLOUD_PROJECT", "p"), ("GOOGLE_API_KEY", "k")])
    else {
        panic!()
    };
    assert_eq!((&*base_url, &*location), ("https://aiplatform.googleapis.com", "global"));
    assert_eq!(project.as_deref(), Some("p"));
    assert!(matches!(credentials, GoogleCredentials::Adc));
    for (place, host) in [
        ("us-central1", "https://us-central1-aiplatform.googleapis.com"),
        ("eu", "https://aiplatform.eu.rep.googleapis.com"),
    ] {
        let env = [vertex, ("GOOGLE_CLOUD_PROJECT", "p"), ("GOOGLE_CLOUD_LOCATION", place)];
        let SiteKind::Vertex { base_url, .. } = site(&env) else { panic!() };
        assert_eq!(base_url, host);
    }
    let SiteKind::Vertex { project, credentials, .. } = site(&[vertex, ("GOOGLE_API_KEY", "k")]) else {
        panic!()
    };
    assert!(project.is_none() && matches!(credentials, GoogleCredentials::ApiKey(_)));
    assert!(load("", &[vertex]).unwrap_err().to_string().contains("GOOGLE_CLOUD_PROJECT"));
}

#[test]
fn check_prints_what_it_would_read_again_and_no_secret() {
    let env = [("GEMINI_API_KEY", "AIza-hidden"), ("TEAM_A_KEY", "sk-hidden")];
    let flags = Overrides { config: Some(PathBuf::from("gw.toml")), ..Overrides::default() };
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let code = cli::check(&flags, &variables(&env), &files(EXAMPLE), &mut out, &mut err);
    let (out, err) = (String::from_utf8(out).unwrap(), String::from_utf8(err).unwrap());
    assert_eq!(code, 0);
    assert!(!err.contains("not enforced"), "{err}");
    assert!(!out.contains("hidden") && out.contains("api_key = \"***\""), "{out}");
    let again = load(&out, &[]).unwrap_or_else(|error| panic!("{error}\n{out}"));
    assert_eq!(again.to_toml(), out);

    let (mut out, mut err) = (Vec::new(), Vec::new());
    let code = cli::check(&flags, &variables(&[]), &files("listn = 1\n"), &mut out, &mut err);
    assert_eq!((code, out.len()), (2, 0));
    assert_eq!(
        String::from_utf8(err).unwrap(),
        "error: gw.toml:1:1: unknown key `listn`, did you mean `listen`?\n"
    );
}

#[test]
fn check_reads_the_catalogue_file_too() {
    let flags = Overrides { config: Some(PathBuf::from("gw.toml")), ..Overrides::default() };
    let check = |path: &str| {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let file = format!("catalog = \"{path}\"\n");
        let code = cli::check(&flags, &variables(&[]), &files(&file), &mut out, &mut err);
        (code, String::from_utf8(err).unwrap())
    };
    let (code, text) = check("absent.toml");
    assert!(code == 2 && text.contains("absent.toml"), "{text}");
    let (code, text) = check("secret.txt");
    assert!(code == 2 && text.contains("secret.txt") && text.contains("line 1"), "{text}");
}

#[test]
fn clients_reach_the_organs() {
    let file =
        "[[keys]]\nname = \"a\"\nsecret = \"sk-a\"\nmodels = [\"gemini-*\"]\nconcurrent_requests = 1\n";
    let config = load(file, &[]).unwrap();
    let keys = Keys::new(&config.key_configs());
    let tenant = keys.authenticate(&http::HeaderMap::new(), Some("key=sk-a")).unwrap();
    assert!(tenant.may_use("gemini-x").is_ok() && tenant.may_use("other").is_err());
    assert_eq!(tenant.quota().concurrent_requests, Some(1));
}
