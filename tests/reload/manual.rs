//! Settings of proxies, as `docs/operate.md` has them.

use std::net::SocketAddr;

/// The block in this language that contains a text, for a server at this address instead of
/// port 8080.
pub(crate) fn settings(language: &str, text: &str, server: SocketAddr) -> String {
    let page = include_str!("../../docs/operate.md");
    let begin = format!("```{language}\n");
    let blocks = page.split(&begin).skip(1);
    let mut blocks = blocks.map(|rest| rest.split("```").next().unwrap());
    let block = blocks.find(|block| block.contains(text));
    let block = block.unwrap_or_else(|| panic!("no block of {language} has {text}"));
    assert!(block.contains("127.0.0.1:8080"), "{block}");
    block.replace("127.0.0.1:8080", &server.to_string())
}

/// The same with one part of it replaced, which has to be there.
pub(crate) fn replaced(settings: &str, part: &str, with: &str) -> String {
    assert!(settings.contains(part), "no {part:?} in {settings}");
    settings.replace(part, with)
}
