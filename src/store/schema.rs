//! The tables, and how they came to be what they are.
//!
//! The version is kept in a table of this component's own, so that others may keep theirs in the same database.

/// Each step leads from one version to the next; the first one makes everything from nothing. Steps that were
/// released are never changed, only followed by further ones.
pub(super) const STEPS: &[&[&str]] = &[&[
    // Responses (their JSON in `body`) and conversations (their metadata in `body`). `touched` decides what goes
    // first: creation for a response, last use for a conversation. `owner` and `lease` are there as long as
    // somebody works on it. `next` is the next free place of a conversation.
    "CREATE TABLE state_heads (
        id TEXT PRIMARY KEY, tenant TEXT NOT NULL, created BIGINT NOT NULL, touched BIGINT NOT NULL,
        status TEXT NOT NULL, background BIGINT NOT NULL, streams BIGINT NOT NULL,
        previous TEXT, conversation TEXT, body TEXT NOT NULL, marks TEXT,
        owner TEXT, lease BIGINT, next BIGINT NOT NULL, bytes BIGINT NOT NULL)",
    "CREATE INDEX state_heads_age ON state_heads (touched)",
    "CREATE INDEX state_heads_owner ON state_heads (owner) WHERE owner IS NOT NULL",
    // Input and output of responses, and what conversations hold. `marks` are those of the
    // response that ended with an item, in conversations only.
    "CREATE TABLE state_items (
        holder TEXT NOT NULL REFERENCES state_heads (id) ON DELETE CASCADE, place BIGINT NOT NULL,
        tenant TEXT NOT NULL, id TEXT NOT NULL, item TEXT NOT NULL, marks TEXT, PRIMARY KEY (holder, place))",
    "CREATE INDEX state_items_id ON state_items (tenant, id)",
    // The events of streamed background work, by their sequence number.
    "CREATE TABLE state_events (
        holder TEXT NOT NULL REFERENCES state_heads (id) ON DELETE CASCADE, number BIGINT NOT NULL,
        event TEXT NOT NULL, PRIMARY KEY (holder, number))",
]];

/// Where the version is kept.
pub(super) const VERSION_TABLE: &str = "CREATE TABLE IF NOT EXISTS state_schema (one INTEGER PRIMARY KEY CHECK (one = 1), version BIGINT NOT NULL)";

/// Reads the version; no row means a database without our tables.
pub(super) const VERSION: &str = "SELECT version FROM state_schema";

/// Writes the version.
pub(super) const SET_VERSION: &str = "INSERT INTO state_schema (one, version) VALUES (1, ?1) \
                                      ON CONFLICT (one) DO UPDATE SET version = excluded.version";

/// The steps that a database of `version` lacks.
///
/// # Errors
/// What to tell the operator when the database is newer than this program.
pub(super) fn missing(
    version: i64,
    steps: &'static [&'static [&'static str]],
) -> Result<Vec<&'static str>, String> {
    let known = i64::try_from(steps.len()).unwrap_or(i64::MAX);
    if version > known {
        return Err(format!(
            "the store was written by a newer gateway (its tables have version {version}, this one knows {known}): \
             run that version, or give [store] another url"
        ));
    }
    let done = usize::try_from(version).unwrap_or_default();
    Ok(steps.iter().skip(done).flat_map(|step| step.iter().copied()).collect())
}
