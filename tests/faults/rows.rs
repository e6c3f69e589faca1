//! The table, played.

use std::fmt::Write as _;
use std::sync::atomic::Ordering::SeqCst;

use super::stage::{Gateway, Reply, Site, Step, chat, gateway, site, site_toml};
use super::table::{End, Row, Way, rows};

const COMMON: &str = "[upstream]\nconnect_timeout = \"1s\"\nfirst_event_timeout = \"600ms\"\nidle_timeout = \
                      \"400ms\"\ntotal_timeout = \"5s\"\n";

/// One row for one kind of client, its sites standing.
struct Cast {
    row: Row,
    model: String,
    stream: bool,
    sites: Vec<Site>,
}

/// Every row at once, against one gateway with a route for each: what one row suffers must not touch another.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn every_row() {
    let mut casts = Vec::new();
    let mut toml = String::from(COMMON);
    let spare = site(vec![vec![Step::Serve]]).await;
    toml.push_str(&site_toml("spare", spare.address, "spare"));
    let mut routes = String::from("[[routes]]\nmodels = [\"spare-model\"]\nsites = [\"spare\"]\n");
    for (number, stream) in (0..rows().len()).flat_map(|number| [(number, false), (number, true)]) {
        let row = rows().swap_remove(number);
        if row.way == if stream { Way::Whole } else { Way::Stream } {
            continue;
        }
        let model = format!("row-{number}-{stream}");
        let (mut sites, mut names) = (Vec::new(), Vec::new());
        for (script, letter) in row.sites.clone().into_iter().zip(["a", "b", "c"]) {
            let secure = matches!(script.first().map(Vec::as_slice), Some([Step::Deaf]));
            let standing = site(script).await;
            // The names that the client sees end in the letter.
            let name = format!("{model}-{letter}");
            let entry = site_toml(&name, standing.address, &name);
            toml.push_str(&if secure { entry.replace("http://", "https://") } else { entry });
            names.push(name);
            sites.push(standing);
        }
        write!(routes, "[[routes]]\nmodels = [{model:?}]\nsites = {names:?}\n{}", row.route).unwrap();
        casts.push(Cast { row, model, stream, sites });
    }
    assert!(casts.len() >= 100 && rows().len() >= 60, "{} of {}", casts.len(), rows().len());
    let gateway = gateway(&(toml + &routes)).await;
    let mut complaints = Vec::new();
    // In waves, so that the timing classes mean something on a small machine.
    for wave in casts.chunks(12) {
        let played = futures_util::future::join_all(wave.iter().map(|cast| play(&gateway, cast))).await;
        complaints.extend(played.into_iter().flatten());
    }
    assert!(complaints.is_empty(), "{} rows:\n{}", complaints.len(), complaints.join("\n"));
}

async fn play(gateway: &Gateway, cast: &Cast) -> Option<String> {
    let Cast { row, model, stream, sites } = cast;
    let reply = chat(gateway.address, model, *stream, row.headers).await;
    let asked: Vec<usize> = sites.iter().map(|site| site.asked.load(SeqCst)).collect();
    let mut wrong = judge(row, *stream, &reply, &asked);
    if wrong.is_empty() {
        let missed = altered(row, &reply);
        let missed = missed.filter(|(_, row)| judge(row, *stream, &reply, &asked).is_empty());
        wrong.extend(missed.map(|(what, _)| format!("another {what} would not be noticed")));
    }
    (!wrong.is_empty()).then(|| {
        let said: String = reply.body.chars().take(300).collect();
        format!("{} (stream: {stream}): {}\n    {said}", row.name, wrong.join("; "))
    })
}

/// The same row with one expectation that is not met: each of them must be able to fail.
fn altered(row: &Row, reply: &Reply) -> impl Iterator<Item = (&'static str, Row)> {
    let took = u64::try_from(reply.took.as_millis()).unwrap();
    let ends = [End::Good, End::Refused("another_code"), End::Cut("another_code")];
    let other_ends = ends.into_iter().filter(|end| *end != row.end);
    let mut all: Vec<(&str, Row)> = other_ends.map(|end| ("end", Row { end, ..row.clone() })).collect();
    let attempts = row.attempts + 1;
    let mut asked = row.asked.clone();
    match asked.first_mut() {
        Some(first) => *first += 1,
        None => asked.push(99),
    }
    all.extend([
        ("status", Row { status: row.status + 1, ..row.clone() }),
        ("number of calls", Row { asked, ..row.clone() }),
        ("earliest time", Row { within: (took + 1, took + 2), ..row.clone() }),
    ]);
    if took > 0 {
        all.push(("latest time", Row { within: (0, took - 1), ..row.clone() }));
    }
    if !tells(row, "x-gemway-attempts") {
        all.push(("number of attempts", Row { attempts, ..row.clone() }));
    }
    for (at, (name, _)) in row.tells.iter().enumerate() {
        let mut row = row.clone();
        row.tells[at].1 = Some("something else");
        all.push((name, row));
    }
    all.into_iter()
}

fn tells(row: &Row, name: &str) -> bool {
    row.tells.iter().any(|(told, _)| *told == name)
}

/// What a row has to complain of.
fn judge(row: &Row, stream: bool, reply: &Reply, asked: &[usize]) -> Vec<String> {
    let mut wrong = Vec::new();
    if reply.status != row.status {
        wrong.push(format!("status {}", reply.status));
    }
    if let Some(what) = misended(row.end, stream, reply) {
        wrong.push(what);
    }
    let fits = match row.asked.as_slice() {
        [] => asked.iter().sum::<usize>() == row.attempts as usize,
        expected => asked == expected,
    };
    if !fits {
        wrong.push(format!("calls {asked:?} and not {:?}", row.asked));
    }
    if !tells(row, "x-gemway-attempts")
        && reply.header("x-gemway-attempts") != Some(row.attempts.to_string().as_str())
    {
        wrong.push(format!("attempts {:?} and not {}", reply.header("x-gemway-attempts"), row.attempts));
    }
    for (name, value) in &row.tells {
        let found = reply.header(name);
        let fits = match (found, value) {
            (Some(found), Some(value)) if *name == "x-gemway-served-by" => found.ends_with(value),
            (found, value) => found == *value,
        };
        if !fits {
            wrong.push(format!("{name} {found:?} and not {value:?}"));
        }
    }
    let took = u64::try_from(reply.took.as_millis()).unwrap();
    if took < row.within.0 || took > row.within.1 {
        wrong.push(format!("took {took} ms and not {:?}", row.within));
    }
    wrong
}

fn misended(end: End, stream: bool, reply: &Reply) -> Option<String> {
    let code = reply.code();
    let done = reply.body.contains("[DONE]");
    let fine = match end {
        End::Good => code.is_none() && done == stream && reply.body.contains("you"),
        End::Refused(expected) => code.as_deref() == Some(expected) && !done,
        End::Cut(expected) => code.as_deref() == Some(expected) && !done && reply.body.contains("Hello"),
    };
    (!fine).then(|| format!("ends with {code:?}, done: {done}, and not {end:?}"))
}
