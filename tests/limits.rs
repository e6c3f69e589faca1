//! What a crowd of keys costs in memory, and that nothing of it stays.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use gemway::clock::Clock;
use gemway::limits::{Amount, Budget, Claim, Limiter, Period, Quota, Timer, Tokens, Used};

/// Resident memory of this process in bytes; 0 where there is no `/proc`.
fn resident() -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kilobytes.unwrap_or(0) * 1024
}

/// The only test of its process: memory is counted by what the process holds. `GEMWAY_TEST_KEYS=1000000` is the long
/// run.
#[tokio::test]
async fn a_key_takes_less_than_300_bytes_and_goes_when_its_time_is_over() {
    let wanted = std::env::vars().find(|(name, _)| name == "GEMWAY_TEST_KEYS");
    let keys: u64 = wanted.and_then(|(_, value)| value.parse().ok()).unwrap_or(20_000);
    let time = Arc::new(AtomicU64::new(1000));
    // 2026-11-21 12:00 UTC.
    let limiter =
        Limiter::with_timer(Vec::new(), Timer::Hand(Arc::clone(&time)), Clock::Stopped(1_795_262_400));
    let quota = Quota {
        requests_per_minute: Some(60),
        requests_per_day: Some(1000),
        tokens_per_minute: Some(100_000),
        concurrent_requests: Some(8),
        ..Quota::default()
    };
    let budget = Budget { amount: Amount::Tokens(1_000_000), per: Period::Day };
    let before = resident();
    assert!(before > 0 || !cfg!(target_os = "linux"));
    for number in 0..keys {
        let key = format!("key-{number}");
        let claim = Claim {
            key: &key,
            model: "gemini-2.5-flash",
            quota: &quota,
            budget: Some(&budget),
            estimate: Tokens { input: 100, output: 256 },
            worst: Some(1000),
            bounded: true,
        };
        let permit = limiter.admit(&claim).await.unwrap();
        permit.settle(&Used { tokens: Tokens { input: 100, output: 50 }, nanos: None });
    }
    let each = resident().saturating_sub(before) / keys;
    println!("{keys} keys with five limits each: {each} bytes a key, {} counts", limiter.counts());
    assert!(each < 300, "{each} bytes a key");
    assert_eq!(
        limiter.counts() as u64,
        4 * keys,
        "a minute, a day, a bucket and a budget; nobody is in flight"
    );
    time.fetch_add(61_000, Ordering::Relaxed);
    limiter.sweep();
    assert_eq!(limiter.counts() as u64, 2 * keys, "the day and the budget go on");
    time.fetch_add(86_400_000, Ordering::Relaxed);
    limiter.sweep();
    assert_eq!(limiter.counts(), 0);
    let after = resident().saturating_sub(before) / keys;
    println!("{after} bytes a key when all is over");
    // How much of it the allocator keeps for later is its own affair.
    assert!(after < each, "{after} bytes a key are not given back");
}
