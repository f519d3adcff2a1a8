import ComposefsJSON
import Testing

private func parse(_ text: String) throws(JSONError) -> JSONValue { try JSONValue.parse(Array(text.utf8)) }

private func fault(_ bytes: [UInt8], limits: JSONLimits = .default) -> JSONError? {
    do throws(JSONError) {
        _ = try JSONValue.parse(bytes, limits: limits)
        return nil
    } catch { return error }
}

private func fault(_ text: String) -> JSONError? { fault(Array(text.utf8)) }

@Suite struct JSONParserTests {
    @Test func everyKindOfValue() throws {
        let value = try parse(#" { "a" : [ null , true,false ], "b":{"c":"d"},"n":-12 , "e":{}, "f":[] } "#)
        #expect(value.object?.keys == ["a", "b", "n", "e", "f"])
        #expect(value["a"] == .array([.null, .bool(true), .bool(false)]))
        #expect(value["a"]?[1]?.bool == true)
        #expect(value["a"]?[3] == nil)
        #expect(value["b"]?["c"]?.string == "d")
        #expect(value["n"]?.int64 == -12)
        #expect(value["e"]?.object?.isEmpty == true)
        #expect(value["f"]?.array?.isEmpty == true)
        #expect(value["missing"] == nil)
    }

    @Test func keysAreExact() throws {
        let value = try parse(#"{"layers":1,"Layers":2}"#)
        #expect(value["layers"] == 1)
        #expect(value["Layers"] == 2)
        // é as one scalar and as two: different keys.
        let accents = try parse(#"{"\u00e9":1,"e\u0301":2}"#)
        #expect(accents["\u{e9}"] == 1)
        #expect(accents["e\u{301}"] == 2)
        #expect(JSONValue.string("\u{e9}") != JSONValue.string("e\u{301}"))
    }

    @Test(arguments: [
        ("0", JSONValue.integer(0)), ("-1", .integer(-1)), ("9223372036854775807", .integer(.max)),
        ("-9223372036854775808", .integer(.min)),
        ("9223372036854775808", .unsigned(9_223_372_036_854_775_808)), ("18446744073709551615", .unsigned(.max)),
        ("18446744073709551616", .double(18_446_744_073_709_551_616)), ("-9223372036854775809", .double(-9_223_372_036_854_775_808)),
        ("1e3", .double(1000)), ("1E+2", .double(100)), ("25e-1", .double(2.5)), ("1.0", .double(1)), ("0.5", .double(0.5)),
    ])
    func numbers(_ text: String, _ value: JSONValue) throws { #expect(try parse(text) == value) }

    @Test func whatIsAnInteger() throws {
        #expect(try parse("-0").int64 == nil)
        #expect(try parse("-0").uint64 == nil)
        #expect(try parse("-0").description == "-0.0")
        #expect(try parse("1e3").int64 == nil)
        #expect(try parse("1.0").uint64 == nil)
        #expect(try parse("-1").uint64 == nil)
        #expect(try parse("18446744073709551615").uint64 == .max)
        #expect(try parse("18446744073709551615").int64 == nil)
        #expect(try parse("7").double == 7)
    }

    @Test(arguments: [
        "01", "-01", "00", "+1", ".5", "1.", "1.e2", "1e", "1e+", "-", "- 1", "0x10", "1_0", "NaN", "Infinity", "-Infinity", "1e999",
    ])
    func notNumbers(_ text: String) {
        #expect(fault(text) != nil)
        #expect(fault("[\(text)]") != nil)
    }

    @Test func escapes() throws {
        #expect(
            try parse(#""\"\\\/\b\f\n\r\t\u0041\u00DF\u20ac\uD83D\uDE00 x""#).string == "\"\\/\u{8}\u{c}\n\r\tA\u{df}\u{20ac}\u{1f600} x")
        #expect(try parse(#""\u0000""#).string == "\u{0}")
        #expect(try parse("\"ä€😀\u{7f}\"").string == "ä€😀\u{7f}")
    }

    @Test(arguments: [
        (#""\x""#, JSONError.Reason.badEscape), (#""\u12g4""#, .badEscape), (#""\ud800""#, .loneSurrogate),
        (#""\ud800\u0041""#, .loneSurrogate),
        (#""\udc00\ud800""#, .loneSurrogate), (#""\ud800x""#, .loneSurrogate), ("\"a\nb\"", .controlCharacter(10)),
        ("\"\\n\u{1f}\"", .controlCharacter(31)), ("\"abc", .endOfInput), ("\"abc\\", .endOfInput), ("\"\\u00", .endOfInput),
    ])
    func badStrings(_ text: String, _ reason: JSONError.Reason) { #expect(fault(text)?.reason == reason) }

    @Test func utf8IsChecked() {
        for bytes: [UInt8] in [[0x80], [0xc0, 0x80], [0xed, 0xa0, 0x80], [0xf4, 0x90, 0x80, 0x80], [0xe2, 0x82]] {
            #expect(fault([0x22] + bytes + [0x22])?.reason == .invalidUTF8)
            #expect(fault([0x22, 0x5c, 0x6e] + bytes + [0x22])?.reason == .invalidUTF8)
            #expect(fault(bytes) != nil)
        }
    }

    @Test(arguments: [
        "", " ", "{", "}", "[", "]", "[1,]", "[,1]", "[1 2]", "{\"a\":1,}", "{,}", "{\"a\"}", "{\"a\":}", "{\"a\" 1}", "{a:1}", "{1:2}",
        "tru", "True",
        "nul", "[1]]", "1 2", "{}{}", "// x\n1", "[1]/**/", "'a'", "\u{a0}1", "\u{c}1",
    ])
    func malformed(_ text: String) { #expect(fault(text) != nil) }

    @Test func refusedWithOffsetAndReason() {
        #expect(fault("\u{feff}{}")?.reason == .byteOrderMark)
        #expect(fault(#"{"a":1,"a":2}"#) == JSONError(offset: 7, reason: .duplicateKey("a")))
        #expect(fault(#"{"a":1,"\u0061":2}"#)?.reason == .duplicateKey("a"))
        #expect(fault("[1,2] x") == JSONError(offset: 6, reason: .trailingBytes))
        #expect(fault(#"{"a";1}"#) == JSONError(offset: 4, reason: .unexpected(UInt8(ascii: ";"))))
        #expect(fault(#"{"a";1}"#)?.description == "invalid JSON at byte 4: unexpected ';'")
        #expect(fault("[\u{1}]")?.description == "invalid JSON at byte 1: unexpected byte 0x01")
    }

    @Test func duplicatesAmongManyKeys() throws {
        let members = (0..<50_000).map { "\"k\($0)\":\($0)" }.joined(separator: ",")
        #expect(try parse("{\(members)}")["k49999"] == 49_999)
        #expect(fault("{\(members),\"k3\":0}")?.reason == .duplicateKey("k3"))
        #expect(fault("{\(members),\"k49999\":0}")?.reason == .duplicateKey("k49999"))
    }

    @Test func limits() throws {
        func nested(_ depth: Int) -> [UInt8] { Array((String(repeating: "[", count: depth) + String(repeating: "]", count: depth)).utf8) }
        #expect(fault(nested(64)) == nil)
        #expect(fault(nested(65)) == JSONError(offset: 64, reason: .tooDeep(limit: 64)))
        #expect(fault(Array(String(repeating: "[", count: 1_000_000).utf8))?.reason == .tooDeep(limit: 64))
        #expect(fault(Array(String(repeating: "{\"a\":", count: 1_000_000).utf8))?.reason == .tooDeep(limit: 64))
        #expect(fault(Array("[1,2,3]".utf8), limits: JSONLimits(values: 4)) == nil)
        #expect(fault(Array("[1,2,3]".utf8), limits: JSONLimits(values: 3))?.reason == .tooManyValues(limit: 3))
    }

    @Test func everyCutIsRefusedAndNoFlipTraps() throws {
        let bytes = Array(#"{"schemaVersion":2,"list":[1,-2.5e3,"a\u00e9\ud83d\ude00",null,true],"o":{"x":{}}}"#.utf8)
        for count in 0..<bytes.count { #expect(fault(Array(bytes[..<count])) != nil) }
        for index in bytes.indices {
            for bit in 0..<8 {
                var damaged = bytes
                damaged[index] ^= 1 << bit
                guard let value = try? JSONValue.parse(damaged) else { continue }
                #expect(try JSONValue.parse(value.compactBytes) == value)
                #expect(try JSONValue.parse(value.prettyBytes) == value)
            }
        }
    }
}

@Suite struct JSONSerializerTests {
    @Test func compact() throws {
        let text = #"{"b":[1,-2,0.5,18446744073709551615,null,true,false],"a":{"x":"y"},"e":{},"f":[]}"#
        #expect(try parse(text).description == text)
    }

    @Test func pretty() throws {
        let value: JSONValue = ["version": 1, "list": ["a", "b"], "none": [], "empty": [:], "deep": ["x": [nil]]]
        #expect(
            String(decoding: value.prettyBytes, as: UTF8.self) == """
                {
                  "version": 1,
                  "list": [
                    "a",
                    "b"
                  ],
                  "none": [],
                  "empty": {},
                  "deep": {
                    "x": [
                      null
                    ]
                  }
                }
                """)
    }

    @Test func onlyWhatMustBeEscapedIs() {
        #expect(JSONValue.string("\"\\/\u{8}\u{c}\n\r\t\u{0}\u{1f}\u{7f}é").description == #""\"\\/\b\f\n\r\t\u0000\u001f"# + "\u{7f}é\"")
        #expect(JSONValue.double(.nan).description == "null")
        #expect(JSONValue.double(.infinity).description == "null")
        #expect(JSONValue(UInt64.max).description == "18446744073709551615")
        #expect(JSONValue(5) == .integer(5))
    }

    @Test func changes() {
        var value: JSONValue = ["a": 1, "b": 2]
        value["a"] = "x"
        value["c"] = nil
        value["d"] = .null
        value["b"] = nil
        #expect(value.description == #"{"a":"x","d":null}"#)
        var nothing = JSONValue.null
        nothing["k"] = true
        #expect(nothing == ["k": true])
        let twice = JSONObject([(key: "a", value: 1), (key: "b", value: 2), (key: "a", value: 3)])
        #expect(twice == JSONObject([(key: "a", value: 3), (key: "b", value: 2)]))
        #expect(Set([value, value]).count == 1)
    }
}
