//! Google's failures as ours.
