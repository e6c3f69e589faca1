use super::*;

/// 2026-11-21 12:00 UTC.
const NOON: u64 = 1_795_262_400;

fn limiter(rules: Vec<Rule>) -> (Limiter, Arc<AtomicU64>) {
    let hand = Arc::new(AtomicU64::new(1000));
    (Limiter::with_timer(rules, Timer::Hand(Arc::clone(&hand)), Clock::Stopped(NOON)), hand)
}

fn claim<'a>(key: &'a str, quota: &'a Quota, input: u64) -> Claim<'a> {
    let estimate = Tokens { input, output: 0 };
    Claim { key, model: "m", quota, budget: None, estimate, worst: None, bounded: true }
}

async fn admit(limiter: &Limiter, quota: &Quota, input: u64) -> Result<Permit, Refusal> {
    limiter.admit(&claim("a", quota, input)).await
}

fn used(input: u64, output: u64) -> Used {
    Used { tokens: Tokens { input, output }, nanos: Some(input.saturating_add(output)) }
}

fn wait(refusal: &Refusal) -> Duration {
    let error = &refusal.error;
    assert_eq!((error.kind(), error.explicit_code()), (Kind::RateLimited, Some("rate_limit_exceeded")));
    match error.retries() {
        Retry::After(wait) => wait,
        other @ (Retry::Never | Retry::Soon) => panic!("{other:?}"),
    }
}

fn header(headers: &[(HeaderName, HeaderValue)], name: &str) -> Option<String> {
    let found = headers.iter().find(|(known, _)| known == name)?;
    Some(found.1.to_str().unwrap().to_owned())
}

#[tokio::test]
async fn no_minute_holds_more_than_the_limit() {
    let (limiter, hand) = limiter(Vec::new());
    let quota = Quota { requests_per_minute: Some(3), ..Quota::default() };
    for left in ["2", "1", "0"] {
        let permit = admit(&limiter, &quota, 0).await.unwrap();
        assert_eq!(header(permit.headers(), "x-ratelimit-limit-requests").as_deref(), Some("3"));
        assert_eq!(header(permit.headers(), "x-ratelimit-remaining-requests").as_deref(), Some(left));
        assert_eq!(header(permit.headers(), "x-ratelimit-limit-tokens"), None);
        hand.fetch_add(5000, Ordering::Relaxed);
    }
    let refusal = admit(&limiter, &quota, 0).await.unwrap_err();
    assert_eq!(wait(&refusal), Duration::from_secs(45));
    assert_eq!(header(&refusal.headers, "x-ratelimit-remaining-requests").as_deref(), Some("0"));
    // Coming back exactly then works, once.
    hand.fetch_add(45_000, Ordering::Relaxed);
    assert!(admit(&limiter, &quota, 0).await.is_ok());
    assert_eq!(wait(&admit(&limiter, &quota, 0).await.unwrap_err()), Duration::from_secs(5));
}

#[tokio::test]
async fn a_flood_gets_exactly_the_limit_in_every_minute() {
    let (limiter, hand) = limiter(Vec::new());
    let quota = Quota { requests_per_minute: Some(60), ..Quota::default() };
    let mut times = Vec::new();
    for step in 0..1800 {
        hand.store(1000 + step * 333, Ordering::Relaxed);
        if admit(&limiter, &quota, 0).await.is_ok() {
            times.push(step * 333);
        }
    }
    for start in (0..530_000).step_by(777) {
        let within = times.iter().filter(|&&time| (start..start + 60_000).contains(&time)).count();
        assert!((59..=60).contains(&within), "{within} from {start}");
    }
}

#[tokio::test]
async fn the_day_counts_too() {
    let (limiter, hand) = limiter(Vec::new());
    let quota = Quota { requests_per_minute: Some(100), requests_per_day: Some(2), ..Quota::default() };
    drop(admit(&limiter, &quota, 0).await.unwrap());
    drop(admit(&limiter, &quota, 0).await.unwrap());
    assert_eq!(wait(&admit(&limiter, &quota, 0).await.unwrap_err()), Duration::from_hours(24));
    hand.fetch_add(DAY, Ordering::Relaxed);
    assert!(admit(&limiter, &quota, 0).await.is_ok());
}

#[tokio::test]
async fn places_come_back_on_drop() {
    let (limiter, _) = limiter(Vec::new());
    let quota = Quota { concurrent_requests: Some(2), ..Quota::default() };
    let first = admit(&limiter, &quota, 0).await.unwrap();
    let second = admit(&limiter, &quota, 0).await.unwrap();
    wait(&admit(&limiter, &quota, 0).await.unwrap_err());
    drop(first);
    let third = admit(&limiter, &quota, 0).await.unwrap();
    second.settle(&used(10, 0));
    assert!(admit(&limiter, &quota, 0).await.is_ok());
    drop(third);
}

#[tokio::test]
async fn tokens_are_charged_settled_and_owed() {
    let (limiter, hand) = limiter(Vec::new());
    let quota = Quota { tokens_per_minute: Some(600), ..Quota::default() };
    let permit = admit(&limiter, &quota, 100).await.unwrap();
    assert_eq!(header(permit.headers(), "x-ratelimit-remaining-tokens").as_deref(), Some("500"));
    assert_eq!(header(permit.headers(), "x-ratelimit-reset-tokens").as_deref(), Some("10s"));
    // The answer was far longer than thought: 600 - 900 leaves a debt of 300.
    permit.settle(&used(100, 800));
    assert_eq!(wait(&admit(&limiter, &quota, 100).await.unwrap_err()), Duration::from_secs(40));
    hand.fetch_add(40_000, Ordering::Relaxed);
    // Less than thought comes back.
    admit(&limiter, &quota, 100).await.unwrap().settle(&used(0, 0));
    let permit = admit(&limiter, &quota, 0).await.unwrap();
    assert_eq!(header(permit.headers(), "x-ratelimit-remaining-tokens").as_deref(), Some("100"));
    // A bucket never overflows, and one that is full admits even more than it holds.
    hand.fetch_add(600_000, Ordering::Relaxed);
    permit.settle(&used(0, 0));
    let _large = admit(&limiter, &quota, 10_000).await.unwrap();
    assert!(admit(&limiter, &quota, 1).await.is_err());
}

#[tokio::test]
async fn input_and_output_have_buckets_of_their_own() {
    let (limiter, _) = limiter(Vec::new());
    let quota = Quota {
        input_tokens_per_minute: Some(1000),
        output_tokens_per_minute: Some(100),
        ..Quota::default()
    };
    admit(&limiter, &quota, 10).await.unwrap().settle(&used(10, 150));
    let refusal = admit(&limiter, &quota, 10).await.unwrap_err();
    assert!(refusal.error.message().contains("output tokens"), "{}", refusal.error.message());
}

#[tokio::test]
async fn huge_and_tiny_rates_are_exact() {
    let (limiter, hand) = limiter(Vec::new());
    let quota = Quota { tokens_per_minute: Some(100_000_000), ..Quota::default() };
    let mut taken = 0_u64;
    for _ in 0..20_000 {
        hand.fetch_add(1, Ordering::Relaxed);
        while let Ok(permit) = admit(&limiter, &quota, 77_777).await {
            permit.settle(&used(77_777, 0));
            taken += 77_777;
        }
    }
    // A full bucket, and 20 seconds of refilling.
    let exact = 100_000_000 + 100_000_000 / 3;
    assert!(taken.abs_diff(exact) < exact / 1000, "{taken}");
}

#[tokio::test]
async fn a_refused_request_pays_nothing_anywhere() {
    let (limiter, hand) = limiter(Vec::new());
    let quota = Quota {
        requests_per_minute: Some(2),
        tokens_per_minute: Some(100),
        concurrent_requests: Some(1),
        ..Quota::default()
    };
    admit(&limiter, &quota, 90).await.unwrap().settle(&used(90, 0));
    for _ in 0..5 {
        assert!(admit(&limiter, &quota, 90).await.is_err());
    }
    hand.fetch_add(54_000, Ordering::Relaxed);
    let permit = admit(&limiter, &quota, 100).await.unwrap();
    assert_eq!(header(permit.headers(), "x-ratelimit-remaining-requests").as_deref(), Some("0"));
}

#[tokio::test]
async fn zero_is_never_and_no_quota_is_free() {
    let (limiter, _) = limiter(Vec::new());
    for quota in [
        Quota { requests_per_minute: Some(0), ..Quota::default() },
        Quota { tokens_per_minute: Some(0), ..Quota::default() },
        Quota { concurrent_requests: Some(0), ..Quota::default() },
    ] {
        wait(&admit(&limiter, &quota, 0).await.unwrap_err());
    }
    let permit = admit(&limiter, &Quota::default(), u64::MAX).await.unwrap();
    assert!(permit.headers().is_empty());
    permit.settle(&used(u64::MAX, u64::MAX));
}

#[tokio::test]
async fn rules_count_for_the_model_the_key_both_or_all() {
    let per = |per_key, per_model| Rule {
        name: "r".to_owned(),
        models: vec![Pattern::new("m*")],
        per_key,
        per_model,
        quota: Quota { requests_per_minute: Some(1), ..Quota::default() },
        ..Rule::default()
    };
    let none = Quota::default();
    let ask = |limiter: Limiter, key: &'static str, model: &'static str| async move {
        let permit = limiter.admit(&Claim { model, ..claim(key, &none, 0) }).await;
        permit.map(drop).is_ok()
    };
    // After one request of key a for model m1: who may still come?
    for (rule, same, other_model, other_key) in [
        (per(false, false), false, false, false),
        (per(true, false), false, false, true),
        (per(false, true), false, true, false),
        (per(true, true), false, true, true),
    ] {
        for (key, model, may) in
            [("a", "m1", same), ("a", "m2", other_model), ("b", "m1", other_key), ("a", "x", true)]
        {
            let (limiter, _) = limiter(vec![rule.clone()]);
            assert!(ask(limiter.clone(), "a", "m1").await);
            assert_eq!(ask(limiter, key, model).await, may, "{rule:?} {key} {model}");
        }
    }
}

fn budget(amount: Amount) -> Budget {
    Budget { amount, per: Period::Day }
}

#[tokio::test]
async fn a_hundred_first_requests_cannot_overrun_a_budget() {
    let (limiter, _) = limiter(Vec::new());
    let (budget, none) = (budget(Amount::Nanos(1000)), Quota::default());
    let ask = |worst| Claim { budget: Some(&budget), worst: Some(worst), ..claim("new", &none, 0) };
    let mut permits = Vec::new();
    for _ in 0..100 {
        permits.extend(limiter.admit(&ask(90)).await);
    }
    assert_eq!(permits.len(), 11);
    assert_eq!(limiter.spent("new", &budget), (0, 990));
    for permit in permits {
        permit.settle(&used(30, 30));
    }
    assert_eq!(limiter.spent("new", &budget), (660, 0));
    let refusal = limiter.admit(&ask(341)).await.unwrap_err();
    assert_eq!(
        (refusal.error.kind(), refusal.error.explicit_code()),
        (Kind::QuotaSpent, Some("insufficient_quota"))
    );
    assert_eq!(refusal.error.retries(), Retry::After(Duration::from_hours(12)));
    let text = refusal.error.message();
    assert!(text.contains("'new'") && text.contains("resets at 2026-11-22T00:00:00Z"), "{text}");
    assert!(limiter.admit(&ask(340)).await.is_ok());
}

#[tokio::test]
async fn without_a_bound_a_request_runs_alone_on_what_is_left() {
    let (limiter, _) = limiter(Vec::new());
    let (budget, none) = (budget(Amount::Tokens(1000)), Quota::default());
    let ask = Claim { budget: Some(&budget), worst: Some(65_000), bounded: false, ..claim("k", &none, 0) };
    let alone = limiter.admit(&ask).await.unwrap();
    assert!(limiter.admit(&ask).await.is_err());
    alone.settle(&used(10, 20));
    limiter.admit(&ask).await.unwrap().settle(&used(500, 500));
    // It went over by what one answer was longer; now nothing is left.
    assert_eq!(limiter.spent("k", &budget).0, 1030);
    assert_eq!(limiter.admit(&ask).await.unwrap_err().error.kind(), Kind::QuotaSpent);
    // What the client bounds itself must fit.
    let bounded = Claim { bounded: true, key: "other", ..ask };
    assert!(limiter.admit(&bounded).await.is_err());
}

#[tokio::test]
async fn budgets_begin_where_the_ledger_says_and_unpriced_models_are_refused() {
    let (limiter, _) = limiter(Vec::new());
    let (budget, none) = (budget(Amount::Nanos(1000)), Quota::default());
    limiter.remember("k", Period::Day, Spent { nanos: 950, tokens: 5 });
    let ask = Claim { budget: Some(&budget), worst: Some(60), ..claim("k", &none, 0) };
    assert!(limiter.admit(&ask).await.is_err());
    assert!(limiter.admit(&Claim { worst: Some(50), ..ask }).await.is_ok());
    let error = limiter.admit(&Claim { worst: None, ..ask }).await.unwrap_err().error;
    assert_eq!((error.kind(), error.explicit_code()), (Kind::Forbidden, Some("unknown_price")));
}

#[test]
fn months_begin_and_end_where_calendars_say() {
    for (now, start, end) in [
        (NOON, 1_793_491_200, 1_796_083_200),
        (951_782_400, 949_363_200, 951_868_800),
        (1_798_761_599, 1_796_083_200, 1_798_761_600),
        (0, 0, 2_678_400),
    ] {
        let index = Period::Month.index(now);
        assert_eq!((Period::Month.start(index), Period::Month.end(index)), (start, end), "{now}");
    }
    assert_eq!(Period::Day.beginning(NOON), NOON - 43_200);
}

#[tokio::test]
async fn a_flood_of_one_key_leaves_the_others_their_share() {
    let rule = Rule { quota: Quota { requests_per_minute: Some(60), ..Quota::default() }, ..Rule::default() };
    let (limiter, hand) = limiter(vec![rule]);
    let (mut flood, mut calm, none) = (0, 0, Quota::default());
    for step in 0..6000_u64 {
        hand.store(1000 + step * 100, Ordering::Relaxed);
        for (key, every) in [("flood", 1), ("calm", 10)] {
            if step % every == 0 && limiter.admit(&claim(key, &none, 0)).await.is_ok() && step > 1200 {
                if key == "calm" { calm += 1 } else { flood += 1 }
            }
        }
    }
    assert!(calm * 100 >= (flood + calm) * 45, "{calm} against {flood}");
}

#[tokio::test]
async fn a_million_keys_take_little_room_and_are_swept() {
    let (limiter, hand) = limiter(Vec::new());
    let quota = Quota {
        requests_per_minute: Some(60),
        tokens_per_minute: Some(100_000),
        concurrent_requests: Some(8),
        ..Quota::default()
    };
    let keys = 20_000;
    for key in 0..keys {
        let name = format!("key-{key}");
        for _ in 0..2 {
            drop(limiter.admit(&claim(&name, &quota, 100)).await.unwrap());
            hand.fetch_add(1, Ordering::Relaxed);
        }
    }
    // Requests and tokens; nobody is under way.
    assert_eq!(limiter.counts(), keys * 2);
    hand.fetch_add(60_000, Ordering::Relaxed);
    limiter.sweep();
    assert_eq!(limiter.counts(), 0);
}

#[test]
fn durations_read_like_go() {
    let text = |millis| go_duration(Duration::from_millis(millis)).as_str().to_owned();
    assert_eq!(text(0), "0ms");
    assert_eq!(text(12), "12ms");
    assert_eq!(text(1000), "1s");
    assert_eq!(text(1500), "1.5s");
    assert_eq!(text(360_000), "6m0s");
    assert_eq!(text(3_723_000), "1h2m3s");
}

/// Three replicas on the server that the test command starts.
fn redis(name: &str) -> Vec<Limiter> {
    #[expect(clippy::disallowed_methods, reason = "a test learns from the test command where the server is")]
    let url = std::env::var("GEMWAY_TEST_REDIS").expect("GEMWAY_TEST_REDIS names a server");
    let sharing = Sharing {
        url: url.into(),
        ca_file: None,
        on_failure: OnFailure::Deny,
        replicas: 3,
        // A busy machine must not decide what is tested here.
        timeout: Duration::from_secs(5),
    };
    let rule = Rule {
        name: name.to_owned(),
        quota: Quota { requests_per_minute: Some(50), ..Quota::default() },
        ..Rule::default()
    };
    let one = || Limiter::sharing(vec![rule.clone()], &sharing, Accounts::new()).unwrap();
    vec![one(), one(), one()]
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "the test command starts a Redis for it"]
async fn replicas_on_one_redis_admit_as_one() {
    let name = format!("requests-{}", std::process::id());
    let limiters = redis(&name);
    let none = Quota::default();
    let mut admitted = 0;
    for round in 0..120 {
        let limiter = &limiters[round % 3];
        admitted += usize::from(limiter.admit(&claim("k", &none, 0)).await.is_ok());
    }
    assert_eq!(admitted, 50);
    let refusal = limiters[0].admit(&claim("k", &none, 0)).await.unwrap_err();
    assert!(wait(&refusal) <= Duration::from_mins(1));
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "the test command starts a Redis for it"]
async fn replicas_on_one_redis_share_tokens_places_and_budgets() {
    let name = format!("all-{}", std::process::id());
    let limiters = redis(&name);
    let care: Vec<_> =
        limiters.iter().cloned().map(|limiter| tokio::spawn(async move { limiter.care().await })).collect();
    let budget = budget(Amount::Nanos(1000));
    let quota =
        Quota { tokens_per_minute: Some(1_000_000), concurrent_requests: Some(4), ..Quota::default() };
    let ask = Claim { budget: Some(&budget), worst: Some(300), ..claim(&name, &quota, 1000) };
    let mut permits = Vec::new();
    for limiter in limiters.iter().cycle().take(9) {
        permits.extend(limiter.admit(&ask).await);
    }
    // The budget holds three worst cases.
    assert_eq!(permits.len(), 3);
    let left = header(permits[2].headers(), "x-ratelimit-remaining-tokens").unwrap();
    assert!(left.starts_with("997"), "{left}");
    for permit in permits.drain(..) {
        permit.settle(&used(100, 100));
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    // 600 are spent and nothing is reserved: one more worst case fits.
    let one = limiters[1].admit(&ask).await.unwrap();
    let refusal = limiters[2].admit(&ask).await.unwrap_err();
    assert_eq!(refusal.error.kind(), Kind::QuotaSpent);
    drop(one);
    for task in care {
        task.abort();
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "the test command starts a Redis for it"]
async fn redis_gives_each_key_its_share_of_a_common_limit() {
    #[expect(clippy::disallowed_methods, reason = "a test learns from the test command where the server is")]
    let url = std::env::var("GEMWAY_TEST_REDIS").expect("GEMWAY_TEST_REDIS names a server");
    let client = redis::Client::open(url).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    let script = redis::Script::new(include_str!("shared.lua"));
    let name = format!("shares-{}", std::process::id());
    // Twenty in a second and a half, so that the window turns over while we look.
    let mut ask = async |who: &str| {
        let mut call = script.prepare_invoke();
        for key in ["a", "b", "f", "born"] {
            call.key(format!("{name}:{key}"));
        }
        call.arg("").arg(60_000).arg("0").arg("r").arg(20).arg(1).arg(1500).arg(who);
        let answer: Vec<String> = call.invoke_async(&mut connection).await.unwrap();
        answer[0] == "1"
    };
    let (began, mut flood, mut calm) = (Instant::now(), 0, 0);
    while began.elapsed() < Duration::from_secs(6) {
        let counts = u32::from(began.elapsed() > Duration::from_secs(2));
        for _ in 0..5 {
            flood += counts * u32::from(ask("flood").await);
        }
        calm += counts * u32::from(ask("calm").await);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(calm * 100 >= (flood + calm) * 40 && flood + calm >= 40, "{calm} against {flood}");
}

#[tokio::test]
async fn requests_at_once_and_tokens_of_a_common_rule_are_shared() {
    let rule = |quota| Rule { name: "all".to_owned(), quota, ..Rule::default() };
    let none = Quota::default();
    let (limiter, _) = limiter(vec![rule(Quota { concurrent_requests: Some(10), ..Quota::default() })]);
    let mut flood = std::collections::VecDeque::new();
    for _ in 0..20 {
        flood.extend(limiter.admit(&claim("flood", &none, 0)).await);
    }
    assert_eq!(flood.len(), 10, "nobody else wants any");
    let mut calm = Vec::new();
    for _ in 0..20 {
        calm.extend(limiter.admit(&claim("calm", &none, 0)).await);
        drop(flood.pop_front());
        flood.extend(limiter.admit(&claim("flood", &none, 0)).await);
    }
    assert!(calm.len() >= 4 && flood.len() >= 4, "{} against {}", calm.len(), flood.len());
    let (limiter, hand) =
        self::limiter(vec![rule(Quota { tokens_per_minute: Some(6000), ..Quota::default() })]);
    let mut used = [0, 0];
    for tick in 0..1800 {
        hand.fetch_add(100, Ordering::Relaxed);
        if tick == 600 {
            // By then the full bucket of the beginning is shared out.
            used = [0, 0];
        }
        // One asks for ten times what the other does, and more than there is.
        for (key, cost, count) in [("flood", 100, 3), ("calm", 100, 1)] {
            for _ in 0..count {
                if let Ok(permit) = limiter.admit(&claim(key, &none, cost)).await {
                    permit.settle(&self::used(cost, 0));
                    used[usize::from(key == "calm")] += cost;
                }
            }
        }
    }
    assert!(used[1] * 100 >= (used[0] + used[1]) * 45, "{used:?}");
    assert!(used[0] + used[1] >= 11_000, "{used:?}");
}

#[tokio::test]
async fn a_store_that_is_away_is_not_waited_for() {
    let nowhere = |on_failure, replicas| Sharing {
        url: "redis://127.0.0.1:1".to_owned().into(),
        ca_file: None,
        on_failure,
        replicas,
        timeout: Duration::from_millis(50),
    };
    let quota = Quota { requests_per_minute: Some(10), ..Quota::default() };
    let count = |limiter: Limiter| async move {
        let began = Instant::now();
        let mut admitted = 0;
        for _ in 0..20 {
            admitted += usize::from(admit(&limiter, &quota, 0).await.is_ok());
        }
        // Three failures, then it is left alone.
        assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
        admitted
    };
    let with = |on_failure| Limiter::sharing(Vec::new(), &nowhere(on_failure, 3), Accounts::new()).unwrap();
    assert_eq!(count(with(OnFailure::Local)).await, 3);
    assert_eq!(count(with(OnFailure::Allow)).await, 20);
    let deny = with(OnFailure::Deny);
    let error = admit(&deny, &quota, 0).await.unwrap_err().error;
    assert_eq!(
        (error.kind(), error.explicit_code()),
        (Kind::Overloaded, Some("rate_limit_store_unavailable"))
    );
    assert!(
        Limiter::sharing(
            Vec::new(),
            &Sharing { url: "nonsense".to_owned().into(), ..nowhere(OnFailure::Deny, 1) },
            Accounts::new()
        )
        .is_err()
    );
}
