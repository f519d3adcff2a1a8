import Testing

@testable import ComposefsTOML

extension TOMLValue {
    /// Types and values as text, keys in order.
    fileprivate var shown: String {
        switch content {
        case .table(let members):
            "{" + members.sorted { $0.key < $1.key }.map { "\($0.key):\($0.value.shown)" }.joined(separator: " ") + "}"
        case .array(let elements): "[" + elements.map(\.shown).joined(separator: " ") + "]"
        case .string(let text): "\"\(text)\""
        case .integer(let number): "\(number)"
        case .boolean(let flag): "\(flag)"
        case .other: "other"
        }
    }
}

/// Cases from the specification's text (toml.io, v1.0.0).
@Suite struct TOMLTests {
    private func parse(_ text: String) throws -> String { try TOML.parse(Array(text.utf8)).shown }

    @Test(arguments: [
        ("", "{}"), ("# only\n\n", "{}"), ("key = \"value\" # c", #"{key:"value"}"#), ("a=1\r\nb=2\r\n", "{a:1 b:2}"),
        ("bare_key-1 = 1\n1234 = 2", "{1234:2 bare_key-1:1}"),
        ("\"127.0.0.1\" = 1\n'quoted \"value\"' = 2", "{127.0.0.1:1 quoted \"value\":2}"),
        ("\"\" = 1", "{:1}"), ("fruit . color = 1\nfruit.\"taste\" = 2", "{fruit:{color:1 taste:2}}"), ("3.14159 = 1", "{3:{14159:1}}"),
        ("apple.type = 1\norange.type = 2\napple.skin = 3", "{apple:{skin:3 type:1} orange:{type:2}}"),
        (#"s = "I'm a \"string\". \t\u00E9\U0001F600""#, "{s:\"I'm a \"string\". \té😀\"}"),
        ("s = \"\"\"\nRoses\r\nViolets\"\"\"", "{s:\"Roses\nViolets\"}"),
        ("s = \"\"\"\\\n  The quick \\\n\n\n  fox.\\\n  \"\"\"", "{s:\"The quick fox.\"}"),
        (#"s = """a "" b""""""#, "{s:\"a \"\" b\"\"\"}"), (#"s = '<\i\c*\s*>'"#, #"{s:"<\i\c*\s*>"}"#),
        ("s = '''\na\n''b'''''", "{s:\"a\n''b''\"}"),
        ("s = \"\"\"\"\"\"", "{s:\"\"}"), ("s = ''", "{s:\"\"}"),
        ("n = [+99, 42, 0, -17, 1_000, 0xDEADBEEF, 0o755, 0b1101, -0]", "{n:[99 42 0 -17 1000 3735928559 493 13 0]}"),
        ("n = 9223372036854775807", "{n:9223372036854775807}"),
        ("f = [3.1415, -0.01, 5e+22, 6.626e-34, 224_617.445, inf, -nan]", "{f:[other other other other other other other]}"),
        ("d = [1979-05-27T07:32:00Z, 1979-05-27 00:32:00.999999-07:00, 1979-05-27, 07:32:00]", "{d:[other other other other]}"),
        ("b = [true, false]", "{b:[true false]}"), ("a = [[1, 2], [\"a\"], {x = 1}, [],\n# c\n3, # d\n]", #"{a:[[1 2] ["a"] {x:1} [] 3]}"#),
        ("[table]\nx = 1\n[table-2]\n", "{table:{x:1} table-2:{}}"), ("[ j . \"ʞ\" . 'l' ]", "{j:{ʞ:{l:{}}}}"),
        ("[x.y.z.w]\n[x]\na = 1", "{x:{a:1 y:{z:{w:{}}}}}"),
        ("[fruit]\napple.color = 1\n[fruit.orange]", "{fruit:{apple:{color:1} orange:{}}}"),
        ("p = { x = 1, y.z = 2 }\ne = {}", "{e:{} p:{x:1 y:{z:2}}}"),
        ("[[p]]\na = 1\n[[p]]\n[[p]]\na = 2", "{p:[{a:1} {} {a:2}]}"),
        ("[[f]]\nn = 1\n[f.p]\nc = 2\n[[f.v]]\nq = 3\n[[f.v]]\n[[f]]\n[[f.v]]", "{f:[{n:1 p:{c:2} v:[{q:3} {}]} {v:[{}]}]}"),
    ])
    func documents(text: String, shown: String) throws { #expect(try parse(text) == shown) }

    @Test(arguments: [
        ("key = # none", 1), ("= 1", 1), ("a\n= 1", 1), ("a = 1 b = 2", 1), ("\na = 1\na = 2", 3), ("a.b = 1\na = 2", 2),
        ("a = 1\na.b = 2", 2),
        ("[a]\n[a]", 2), ("[a]\nb = 1\n[a.b]", 3), ("[fruit]\napple.color = 1\n[fruit.apple]", 3), ("[a.b]\n[a]\nb.c = 1", 3),
        ("p = {x = 1}\np.y = 2", 2), ("p = {x = 1}\n[p.q]", 2), ("a = []\n[[a]]", 2), ("[a]\n[[a]]", 2), ("[[a]]\n[a]", 2),
        ("[f.p]\n[[f]]", 2), ("a = [{x = 1}]\n[a.b]", 2), ("p = {x = 1,}", 1), ("p = {x = 1\n}", 1), ("p = {x = 1, x = 2}", 1),
        ("p = {a.b = 1, a = 2}", 1), ("s = \"a\nb\"", 1), ("s = 'a", 1), ("s = \"\"\"a", 1), ("\ns = \"\\q\"", 2), ("s = \"\\u12\"", 1),
        ("s = \"\\uD800\"", 1), ("s = \"\\U00110000\"", 1), ("s = \"\u{1}\"", 1), ("# \u{7f}", 1), ("a = 1\rb = 2", 1), ("[a", 1),
        ("[a]]", 1),
        ("[[a]", 1), ("[[a] ]", 1), ("[]", 1), ("[a.]", 1), ("a. = 1", 1), (".a = 1", 1), ("ä = 1", 1), ("\"\"\"a\"\"\" = 1", 1),
        ("a = b", 1),
        ("a = yes", 1), ("a = 01", 1), ("a = 1_", 1), ("a = _1", 1), ("a = 1__2", 1), ("a = +0x1", 1), ("a = 0xg", 1),
        ("a = 9223372036854775808", 1),
        ("a = .5", 1), ("a = [1 2]", 1), ("a = [1,,2]", 1), ("a = [", 1), ("a = [1,\n\n", 3), ("a = True", 1),
    ])
    func mistakes(text: String, line: Int) {
        let error = #expect(throws: TOMLError.self) { _ = try parse(text) }
        #expect(error?.line == line, "\(error?.reason ?? "")")
        #expect(error?.reason.utf8.allSatisfy { $0 >= 0x20 && $0 != 0x7f } == true)
    }

    @Test func notUTF8() {
        let error = #expect(throws: TOMLError.self) { _ = try TOML.parse(Array("a = 1\nb = \"".utf8) + [0xff, 0x22]) }
        #expect(error?.line == 2)
    }

    @Test func lines() throws {
        let text = "# c\na = [\n1,\n\"\"\"x\ny\"\"\",\n2]\n\n[t]\nb = 1\n[[l]]\n[[l]]\n"
        let root = try TOML.parse(Array(text.utf8))
        #expect(root["a"]?.line == 2)
        #expect(root["a"]?.array?.map(\.line) == [3, 4, 6])
        #expect(root["t"]?.line == 8)
        #expect(root["t"]?["b"]?.line == 9)
        #expect(root["l"]?.array?.map(\.line) == [10, 11])
    }

    @Test func depth() throws {
        let path = { (count: Int) in Array(repeating: "a", count: count).joined(separator: ".") }
        #expect(throws: Never.self) { try parse("[\(path(64))]") }
        #expect(throws: TOMLError.self) { try parse("[\(path(65))]") }
        #expect(throws: Never.self) { try parse("[\(path(32))]\n\(path(32)) = 1") }
        #expect(throws: TOMLError.self) { try parse("[\(path(32))]\n\(path(33)) = 1") }
        #expect(throws: Never.self) { try parse("a = " + String(repeating: "[", count: 64) + String(repeating: "]", count: 64)) }
        #expect(throws: TOMLError.self) { try parse("a = " + String(repeating: "[", count: 65) + String(repeating: "]", count: 65)) }
    }

    @Test func longDocumentsTakeLinearTime() throws {
        let aliases = (0..<20_000).map { "\"name\($0)\" = \"registry.example/n/name\($0)\"" }.joined(separator: "\n")
        let registries = (0..<10_000).map { "[[registry]]\nlocation = \"r\($0).example\"" }.joined(separator: "\n")
        let clock = ContinuousClock()
        let time = try clock.measure {
            let root = try TOML.parse(Array("[aliases]\n\(aliases)\n\(registries)\n".utf8))
            #expect(root["aliases"]?.table?.count == 20_000)
            #expect(root["registry"]?.array?.count == 10_000)
        }
        #expect(time < .seconds(10))
    }
}
