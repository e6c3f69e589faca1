//! Why an answer ended, in both dialects.

/// What Google's reason means for the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finish {
    /// The model was done, or ended for a reason newer than this release.
    Stop,
    /// A token limit, or a hop of a long answer that nobody continued.
    Length,
    /// A filter took the answer, or the rest of it.
    Filtered,
    /// The model's output could not be used (a broken call, a missing signature).
    Faulty,
}

impl Finish {
    /// Reads Google's `finishReason`; `None` for "unspecified", which says nothing.
    pub fn read(native: &str) -> Option<Self> {
        let name = native.strip_prefix("FINISH_REASON_").unwrap_or(native);
        Some(match name {
            "" | "UNSPECIFIED" => return None,
            "MAX_TOKENS" | "CONTINUATION" => Self::Length,
            "SAFETY"
            | "RECITATION"
            | "BLOCKLIST"
            | "PROHIBITED_CONTENT"
            | "SPII"
            | "LANGUAGE"
            | "OTHER"
            | "IMAGE_SAFETY"
            | "IMAGE_PROHIBITED_CONTENT"
            | "IMAGE_RECITATION"
            | "IMAGE_OTHER"
            | "NO_IMAGE"
            | "MODEL_ARMOR"
            | "ESCALATION"
            | "PUP_LIMITED_DISABLED" => Self::Filtered,
            "MALFORMED_FUNCTION_CALL"
            | "MALFORMED_RESPONSE"
            | "UNEXPECTED_TOOL_CALL"
            | "TOO_MANY_TOOL_CALLS"
            | "MISSING_THOUGHT_SIGNATURE" => Self::Faulty,
            _ => Self::Stop,
        })
    }

    /// Whether this release knows the reason, and does not merely take it for the best.
    pub fn known(native: &str) -> bool {
        native == "STOP" || native == "FINISH_REASON_STOP" || Self::read(native) != Some(Self::Stop)
    }

    /// The client's `finish_reason`. A cut-off call stays `length`: hiding that would have the client run it.
    pub fn openai(self, called: Option<Called>) -> &'static str {
        match (self, called) {
            (Self::Length, _) => "length",
            (Self::Filtered, _) => "content_filter",
            (Self::Stop | Self::Faulty, Some(Called::Tool)) => "tool_calls",
            (Self::Stop | Self::Faulty, Some(Called::Function)) => "function_call",
            (Self::Stop | Self::Faulty, None) => "stop",
        }
    }
}

/// How the client was told of calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Called {
    /// As `tool_calls`.
    Tool,
    /// As the deprecated `function_call`.
    Function,
}

/// Whether Google's own word adds something to the client's `finish_reason`.
pub fn worth_telling(native: &str) -> bool {
    !matches!(native, "STOP" | "FINISH_REASON_STOP" | "MAX_TOKENS")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every member that Google's two definitions list today, and what becomes of it with a call and without.
    #[test]
    fn every_reason_google_has() {
        let filtered = "SAFETY RECITATION LANGUAGE OTHER BLOCKLIST PROHIBITED_CONTENT SPII IMAGE_SAFETY
            IMAGE_PROHIBITED_CONTENT IMAGE_RECITATION IMAGE_OTHER NO_IMAGE MODEL_ARMOR ESCALATION
            PUP_LIMITED_DISABLED";
        let faulty = "MALFORMED_FUNCTION_CALL MALFORMED_RESPONSE UNEXPECTED_TOOL_CALL TOO_MANY_TOOL_CALLS
            MISSING_THOUGHT_SIGNATURE";
        let places = [
            ("STOP", Finish::Stop, "stop", "tool_calls"),
            ("MAX_TOKENS CONTINUATION", Finish::Length, "length", "length"),
            (filtered, Finish::Filtered, "content_filter", "content_filter"),
            (faulty, Finish::Faulty, "stop", "tool_calls"),
        ];
        for (names, finish, alone, called) in places {
            for name in names.split_whitespace() {
                assert_eq!(Finish::read(name), Some(finish), "{name}");
                assert_eq!(Finish::read(&format!("FINISH_REASON_{name}")), Some(finish), "{name}");
                assert_eq!(finish.openai(None), alone, "{name}");
                assert_eq!(finish.openai(Some(Called::Tool)), called, "{name}");
                assert_eq!(worth_telling(name), !["STOP", "MAX_TOKENS"].contains(&name), "{name}");
            }
        }
    }

    #[test]
    fn reasons_have_their_place() {
        assert_eq!(Finish::read("FINISH_REASON_UNSPECIFIED"), None);
        assert_eq!(Finish::read("FINISH_REASON_STOP"), Some(Finish::Stop));
        assert_eq!(Finish::read("CONTINUATION"), Some(Finish::Length));
        assert_eq!(Finish::read("MODEL_ARMOR"), Some(Finish::Filtered));
        assert_eq!(Finish::read("NEW_IN_2031"), Some(Finish::Stop));
        assert!(!Finish::known("NEW_IN_2031") && Finish::known("STOP") && Finish::known("SAFETY"));
        assert!(Finish::known("FINISH_REASON_STOP") && Finish::known("FINISH_REASON_UNSPECIFIED"));
        assert_eq!(Finish::Length.openai(Some(Called::Tool)), "length");
        assert_eq!(Finish::Stop.openai(Some(Called::Function)), "function_call");
    }
}
