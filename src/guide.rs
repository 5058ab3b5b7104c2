// The pages of `docs/` as chapters of the documentation, where their programs are compiled and run. Built for
// documentation and its tests alone.
//
// The pages are read in the repository, too, so links between them are by file name, with a definition at the end
// of each page. Here `links.md` comes first, and the first definition of a link is the one that holds: it leads to
// the chapter. In the same way a picture, for which no file is beside a page of documentation, is replaced by
// nothing, and the SVG itself stands at the head of the chapter.
//
// A new page has a line here, one in `docs/rustdoc/links.md`, and one in `docs/guide.md`.

#![doc = include_str!("../docs/rustdoc/links.md")]
#![doc = include_str!("../docs/guide.md")]

macro_rules! chapter {
    ($name:ident: $title:literal, $page:literal $(, picture $svg:literal)* $(, with $feature:literal)*) => {
        #[doc = $title]
        #[doc = ""]
        $(
            #[doc = include_str!($svg)]
            #[doc = ""]
        )*
        #[doc = include_str!("../docs/rustdoc/links.md")]
        #[doc = include_str!($page)]
        // Every chapter is shown. Its programs are tested if the features that they need are there.
        #[cfg(any(not(doctest), all($(feature = $feature),*)))]
        pub mod $name {}
    };
}

chapter!(first_server: "A server in twenty lines.", "../docs/first-server.md");
chapter!(hooks: "Which hook runs when.", "../docs/hooks.md", picture "../docs/turn.svg", picture "../docs/life.svg");
chapter!(reading: "Input, and what bounds a peer.", "../docs/reading.md", with "layers");
chapter!(
    writing: "Output, backpressure, relays.", "../docs/writing.md",
    picture "../docs/backpressure.svg", with "layers"
);
chapter!(ending: "Close, half-close, abort; the end of the program.", "../docs/ending.md");
chapter!(timers: "Calling something later.", "../docs/timers.md");
chapter!(threads: "Other threads.", "../docs/threads.md");
chapter!(names: "Connecting by name, and again.", "../docs/names.md", with "layers");
chapter!(udp: "Datagrams.", "../docs/udp.md");
chapter!(pipes: "Pipes, terminals, children.", "../docs/pipes.md");
chapter!(limits: "What strangers may take, and an orderly end.", "../docs/limits.md", with "layers");
chapter!(embedding: "With a loop that is there already.", "../docs/embedding.md");
chapter!(layers: "Which layer when.", "../docs/layers.md", with "layers");
chapter!(chat: "Messages with an end.", "../docs/chat.md", with "layers");
chapter!(framings: "Where a message ends.", "../docs/framings.md", with "layers");
chapter!(protocols: "asyncio's `Protocol` and `Transport`.", "../docs/protocols.md", with "layers");
chapter!(streams: "A connection for a thread that may block.", "../docs/streams.md", with "layers");
chapter!(tls: "TLS by rustls.", "../docs/tls.md", with "tls");
chapter!(
    operating: "What a running server tells.", "../docs/operating.md",
    picture "../docs/monitor.svg"
);
chapter!(
    balancer: "Behind a balancer; restarts.", "../docs/balancer.md",
    with "layers", with "proxy-protocol"
);
chapter!(loops: "More than one core.", "../docs/loops.md");
chapter!(testing: "Without sockets and without waiting.", "../docs/testing.md", with "layers", with "testing");
chapter!(porting: "From asyncore, asyncio, Twisted, libuv.", "../docs/porting.md", with "layers");
chapter!(asyncore: "What was wrong with asyncore.", "../docs/asyncore.md");
chapter!(borrow_checker: "Ten wrong programs, and the right ones.", "../docs/borrow-checker.md", with "layers");
