import ComposefsBootFormats
import ComposefsBytes
import ComposefsHashing
import Testing

private let sha256 = "8b7df143d91c716ecfa5fc1730022f6b421b05cedee8fd52b1fc65a96030ad52"
private let sha512 =
    "6f06b5e82420abec546d6e6d3ddd612c50cfa9b707c129345b7ec16f456b92fe35df68999b042e1a6a70dfe75f2fed8cf9f67afd0bf08d2374678d75e2f65a02"

@Suite struct KernelArgumentTests {
    /// The six forms of the reference.
    @Test(
        "Every form is read and written",
        arguments: [
            ("composefs=\(sha256)", sha256, ComposefsArgument.Format.v2, false),
            ("composefs=?\(sha512)", sha512, .v2, true),
            ("composefs.digest=v1-sha256-12:\(sha256)", sha256, .v1, false),
            ("composefs.digest=?v1-sha512-12:\(sha512)", sha512, .v1, true),
            ("composefs.digest=?v1-sha256-12:\(sha256)", sha256, .v1, true),
            ("composefs=\(sha512)", sha512, .v2, false),
        ])
    func forms(text: String, hex: String, format: ComposefsArgument.Format, allowsInsecure: Bool) throws {
        let argument = try #require(try ComposefsArgument(ByteString(text)))
        #expect(argument.id.hex == hex)
        #expect(argument.format == format)
        #expect(argument.allowsInsecure == allowsInsecure)
        #expect(argument.text == ByteString(text))
    }

    @Test func formatTwoMayBeNamed() throws {
        let argument = try #require(try ComposefsArgument(ByteString("composefs.digest=v2-sha256-12:" + sha256)))
        #expect(argument.format == .v2)
        #expect(argument.text == ByteString("composefs=" + sha256))
    }

    @Test(
        "A value of another form is an error that names it",
        arguments: [
            ("composefs", ComposefsArgumentError.Reason.noValue),
            ("composefs=", .noValue),
            ("composefs=?", .digest),
            ("composefs=1234", .digest),
            ("composefs=\(sha256.uppercased())", .digest),
            ("composefs=??\(sha256)", .digest),
            ("composefs=\"\(sha256)\"", .digest),
            ("composefs.digest=\(sha256)", .noAlgorithm),
            ("composefs.digest=sha256-12:\(sha256)", .noAlgorithm),
            ("composefs.digest=v1-sha256-12-1:\(sha256)", .noAlgorithm),
            ("composefs.digest=v3-sha256-12:\(sha256)", .format),
            ("composefs.digest=v1-md5-12:\(sha256)", .algorithm),
            ("composefs.digest=v1-sha256-16:\(sha256)", .blockSize),
            ("composefs.digest=v1-sha512-12:\(sha256)", .digest),
            ("composefs.digest=v1-sha256-12:\(sha256) ", .digest),
            ("composefs.digest=v1-sha256-12:", .digest),
        ])
    func malformed(text: String, reason: ComposefsArgumentError.Reason) throws {
        let error = try #require(throws: ComposefsArgumentError.self) { try ComposefsArgument(ByteString(text)) }
        #expect(error.reason == reason)
        let value = text.contains("=") ? String(text.split(separator: "=", maxSplits: 1).dropFirst().first ?? "") : ""
        #expect(error.value == ByteString(value))
        #expect(error.description.contains(ByteString(value).description))
    }

    @Test(arguments: ["composefs_x=1", "composefs.foo=1", "xcomposefs=1", "root=/dev/vda", "=composefs", ""])
    func otherKeys(text: String) throws {
        #expect(try ComposefsArgument(ByteString(text)) == nil)
    }

    @Test func theExactFormCountsFirst() throws {
        let line = KernelCommandLine(
            parsing:
                "ro composefs=\(sha512) composefs=\(sha256) composefs.digest=v1-sha512-12:\(sha512) composefs.digest=?v1-sha256-12:\(sha256) quiet\n"
                .utf8)
        let chosen = try #require(try line.composefsArgument(for: .sha256))
        #expect(chosen.format == .v1)
        #expect(chosen.allowsInsecure)
        #expect(try line.composefsArgument(for: .sha512)?.allowsInsecure == false)
        #expect(try line.composefsArguments().map(\.format) == [.v2, .v2, .v1, .v1])
        #expect(try KernelCommandLine(parsing: "composefs=\(sha512)".utf8).composefsArgument(for: .sha256) == nil)
    }

    @Test func oneMalformedArgumentIsAnErrorAlthoughOthersFollow() {
        let line = KernelCommandLine(parsing: "composefs.digest=v1-sha256-12:00 composefs=\(sha256)".utf8)
        #expect(throws: ComposefsArgumentError.self) { try line.composefsArgument(for: .sha256) }
        #expect(throws: ComposefsArgumentError.self) { try line.composefsArguments() }
    }

    @Test(
        "Arguments end at white space outside of quotes",
        arguments: [
            ("", []),
            (" \t\n\u{0B}\u{0C}\r", []),
            ("a b", ["a", "b"]),
            ("  a=1\t\tb=\"x y\" c\n", ["a=1", "b=\"x y\"", "c"]),
            ("\"a b\"=c d", ["\"a b\"=c", "d"]),
            ("open=\"x y", ["open=\"x y"]),
            ("a\u{0}b c", ["a"]),
        ] as [(String, [String])])
    func splitting(text: String, arguments: [String]) {
        #expect(KernelCommandLine(parsing: text.utf8).arguments == arguments.map { ByteString($0) })
    }

    /// What is added after an open quote would be part of the quoted text, and the machine would boot without it.
    @Test func setAfterAnOpenQuote() {
        var line = KernelCommandLine(parsing: #"ro a="b c"#.utf8)
        #expect(line.arguments == ["ro", #"a="b c"#] && line.bytes == Array(#"ro a="b c"#.utf8))
        line.set("composefs=x")
        #expect(String(decoding: line.bytes, as: UTF8.self) == #"ro a="b c" composefs=x"#)
        #expect(KernelCommandLine(parsing: line.bytes).arguments == ["ro", #"a="b c""#, "composefs=x"])
        line.set(#"ro"q"#)
        #expect(KernelCommandLine(parsing: line.bytes).arguments == ["ro", #"a="b c""#, "composefs=x", #"ro"q"#])
        var entry = LoaderEntry(parsing: "linux /k\noptions a=\"b c\n".utf8)
        entry.setArgument("composefs=x")
        #expect(entry.options.arguments == [#"a="b c""#, "composefs=x"])
    }

    @Test func settingReplacesTheFirstOfTheKey() {
        var line = KernelCommandLine(parsing: "ro composefs=1 x composefs=2 composefs.digest=3".utf8)
        line.set("composefs=9")
        line.set("composefs.digest=8")
        line.set("ro")
        line.set("quiet")
        #expect(String(decoding: line.bytes, as: UTF8.self) == "ro composefs=9 x composefs=2 composefs.digest=8 quiet")
    }
}
