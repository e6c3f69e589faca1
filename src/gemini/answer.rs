//! What Gemini answers.
