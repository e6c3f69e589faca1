use super::*;

fn limiter(quota: Quota) -> (Limiter, Arc<AtomicU64>) {
    let hand = Arc::new(AtomicU64::new(0));
    (Limiter::with_timer(vec![("a".to_owned(), quota)], &Timer::Hand(Arc::clone(&hand))), hand)
}

fn wait(error: &Error) -> Duration {
    assert_eq!((error.kind(), error.explicit_code()), (Kind::RateLimited, Some("rate_limit_exceeded")));
    match error.retries() {
        Retry::After(wait) => wait,
        other @ (Retry::Never | Retry::Soon) => panic!("{other:?}"),
    }
}

fn header(permit: &Permit, name: &str) -> Option<String> {
    let found = permit.headers().iter().find(|(known, _)| known == name)?;
    Some(found.1.to_str().unwrap().to_owned())
}

#[test]
fn requests_refill_evenly() {
    let (limiter, hand) = limiter(Quota { requests_per_minute: Some(3), ..Quota::default() });
    for left in ["2", "1", "0"] {
        let permit = limiter.admit("a", 0).unwrap();
        assert_eq!(header(&permit, "x-ratelimit-limit-requests").as_deref(), Some("3"));
        assert_eq!(header(&permit, "x-ratelimit-remaining-requests").as_deref(), Some(left));
        assert_eq!(header(&permit, "x-ratelimit-limit-tokens"), None);
    }
    assert_eq!(wait(&limiter.admit("a", 0).unwrap_err()), Duration::from_secs(20));
    hand.store(20_000, Ordering::Relaxed);
    let permit = limiter.admit("a", 0).unwrap();
    assert_eq!(header(&permit, "x-ratelimit-reset-requests").as_deref(), Some("1m0s"));
    assert!(limiter.admit("a", 0).is_err());
}

#[test]
fn the_day_counts_too() {
    let quota = Quota { requests_per_minute: Some(100), requests_per_day: Some(2), ..Quota::default() };
    let (limiter, hand) = limiter(quota);
    drop(limiter.admit("a", 0).unwrap());
    drop(limiter.admit("a", 0).unwrap());
    assert_eq!(wait(&limiter.admit("a", 0).unwrap_err()), Duration::from_hours(12));
    hand.store(12 * 3_600_000, Ordering::Relaxed);
    assert!(limiter.admit("a", 0).is_ok());
}

#[test]
fn places_come_back_on_drop() {
    let (limiter, _) = limiter(Quota { concurrent_requests: Some(2), ..Quota::default() });
    let first = limiter.admit("a", 0).unwrap();
    let second = limiter.admit("a", 0).unwrap();
    wait(&limiter.admit("a", 0).unwrap_err());
    drop(first);
    let third = limiter.admit("a", 0).unwrap();
    second.settle(10);
    assert!(limiter.admit("a", 0).is_ok());
    drop(third);
}

#[test]
fn tokens_are_charged_settled_and_owed() {
    let (limiter, hand) = limiter(Quota { tokens_per_minute: Some(600), ..Quota::default() });
    let permit = limiter.admit("a", 100).unwrap();
    assert_eq!(header(&permit, "x-ratelimit-remaining-tokens").as_deref(), Some("500"));
    assert_eq!(header(&permit, "x-ratelimit-reset-tokens").as_deref(), Some("10s"));
    // The answer was far longer than thought: 600 - 900 leaves a debt of 300.
    permit.settle(900);
    assert_eq!(wait(&limiter.admit("a", 100).unwrap_err()), Duration::from_secs(40));
    hand.store(40_000, Ordering::Relaxed);
    // Less than thought comes back.
    limiter.admit("a", 100).unwrap().settle(0);
    let permit = limiter.admit("a", 0).unwrap();
    assert_eq!(header(&permit, "x-ratelimit-remaining-tokens").as_deref(), Some("100"));
    // A bucket never overflows, and one that is full admits even more than it holds.
    hand.store(600_000, Ordering::Relaxed);
    permit.settle(0);
    assert!(limiter.admit("a", 10_000).is_ok());
    assert!(limiter.admit("a", 1).is_err());
}

#[test]
fn a_refused_request_pays_no_tokens_and_takes_no_place() {
    let quota = Quota {
        requests_per_minute: Some(1),
        tokens_per_minute: Some(100),
        concurrent_requests: Some(1),
        requests_per_day: None,
    };
    let (limiter, hand) = limiter(quota);
    limiter.admit("a", 10).unwrap().settle(10);
    for _ in 0..5 {
        assert!(limiter.admit("a", 90).is_err());
    }
    hand.store(60_000, Ordering::Relaxed);
    let permit = limiter.admit("a", 100).unwrap();
    assert_eq!(header(&permit, "x-ratelimit-remaining-tokens").as_deref(), Some("0"));
}

#[test]
fn zero_is_never_and_strangers_are_free() {
    let (none, _) = limiter(Quota { requests_per_minute: Some(0), ..Quota::default() });
    wait(&none.admit("a", 0).unwrap_err());
    let permit = none.admit("b", u64::MAX).unwrap();
    assert!(permit.headers().is_empty());
    permit.settle(u64::MAX);
    let (tokenless, _) = limiter(Quota { tokens_per_minute: Some(0), ..Quota::default() });
    wait(&tokenless.admit("a", 0).unwrap_err());
}

#[test]
fn durations_read_like_go() {
    let text = |millis| go_duration(Duration::from_millis(millis));
    assert_eq!(text(0), "0ms");
    assert_eq!(text(12), "12ms");
    assert_eq!(text(1000), "1s");
    assert_eq!(text(1500), "1.5s");
    assert_eq!(text(360_000), "6m0s");
    assert_eq!(text(3_723_000), "1h2m3s");
}
