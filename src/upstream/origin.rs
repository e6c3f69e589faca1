//! Where the addresses of a site begin: taken apart once, so that each call's address is only checked from its path on.

use bytes::Bytes;
use http::Uri;
use http::uri::{Authority, Parts, PathAndQuery, Scheme};

use super::fail;
use crate::error::{Error, Result};

/// `https://host:port/path`, without a slash at the end.
#[derive(Clone, Debug)]
pub(super) struct Origin {
    text: String,
    scheme: Scheme,
    authority: Authority,
    path: String,
}

impl Origin {
    /// Takes a base address apart.
    ///
    /// # Errors
    /// When it is not `http://` or `https://` with a host and at most a path.
    pub(super) fn new(text: &str) -> Result<Self> {
        let bad = || {
            fail::setting(
                "A base URL must be http:// or https:// with a host, and nothing after the path.".into(),
            )
        };
        let text = text.trim_end_matches('/');
        let uri = Uri::try_from(text).map_err(|error| bad().because(error))?;
        let asks = uri.query().is_some();
        let path = uri.path().trim_end_matches('/').to_owned();
        let Parts { scheme, authority, .. } = uri.into_parts();
        let (Some(scheme), Some(authority)) = (scheme, authority) else { return Err(bad()) };
        let known = scheme == Scheme::HTTP || scheme == Scheme::HTTPS;
        if !known || authority.host().is_empty() || authority.as_str().contains('@') || asks {
            return Err(bad());
        }
        Ok(Self { text: text.to_owned(), scheme, authority, path })
    }

    /// As it was written.
    pub(super) fn as_str(&self) -> &str {
        &self.text
    }

    /// What every path here begins with; nothing, or a slash and more.
    pub(super) fn path(&self) -> &str {
        &self.path
    }

    /// The address of a path, from the root on, and its query.
    ///
    /// # Errors
    /// When they cannot stand in an address.
    pub(super) fn at(&self, path: String) -> Result<Uri> {
        let bad = "This path cannot be asked for.";
        let path = PathAndQuery::from_maybe_shared(Bytes::from(path));
        let mut parts = Parts::default();
        parts.scheme = Some(self.scheme.clone());
        parts.authority = Some(self.authority.clone());
        parts.path_and_query = Some(path.map_err(|error| Error::invalid("path", bad).because(error))?);
        Uri::from_parts(parts).map_err(|error| Error::invalid("path", bad).because(error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_the_base_and_a_path() {
        for (base, address) in [
            ("https://h", "https://h/v1/m?a=b"),
            ("https://h/", "https://h/v1/m?a=b"),
            ("http://h:8080/below/", "http://h:8080/below/v1/m?a=b"),
        ] {
            let origin = Origin::new(base).unwrap();
            let uri = origin.at(format!("{}/v1/m?a=b", origin.path())).unwrap();
            assert_eq!(uri.to_string(), address);
            assert_eq!(uri, address.parse::<Uri>().unwrap());
        }
        assert!(Origin::new("https://h").unwrap().at("/a b".to_owned()).is_err());
    }
}
