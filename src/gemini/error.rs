//! `google.rpc.Status`.
