//! What Gemini is asked.
/// `GenerateContentRequest`.
#[derive(Debug)]
pub struct GenerateRequest<'a>(pub std::marker::PhantomData<&'a ()>);
