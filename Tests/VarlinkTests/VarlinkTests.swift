import ComposefsBytes
import ComposefsJSON
import Testing

@testable import ComposefsVarlink

/// Messages of the protocol (varlink.org/Method-Call).
@Suite struct MessageTests {
    private func read(_ pieces: [String], limit: Int = 64) throws(VarlinkFault) -> [String] {
        var reader = FrameReader(limit: limit)
        var found: [String] = []
        for piece in pieces {
            Array(piece.utf8).withUnsafeBytes { reader.append($0) }
            while let message = try reader.next() { found.append(String(decoding: message, as: UTF8.self)) }
        }
        return found
    }

    @Test func messagesEndWithNUL() throws {
        #expect(try read(["{}\0{\"a\"", ":1}", "\0", "{"]) == ["{}", "{\"a\":1}"])
        #expect(try read(["\0\0"]) == ["", ""])
        var reader = FrameReader(limit: 8)
        #expect(!reader.isInsideMessage)
        Array("{}\0{".utf8).withUnsafeBytes { reader.append($0) }
        #expect(try reader.next() == Array("{}".utf8))
        #expect(try reader.next() == nil)
        #expect(reader.isInsideMessage)
    }

    /// The limit holds before the end has arrived, and for the bytes of the message alone.
    @Test func longMessages() throws {
        #expect(try read(["12345678\0"], limit: 8) == ["12345678"])
        #expect(throws: VarlinkFault.tooLong(limit: 8)) { try read(["123456789"], limit: 8) }
        #expect(throws: VarlinkFault.tooLong(limit: 8)) { try read(["1\0", "123456789\0"], limit: 8) }
        // Many messages in one piece are no long message.
        let many = String(repeating: "1234567\0", count: 20_000)
        #expect(try read([many], limit: 8).count == 20_000)
    }

    @Test func calls() throws {
        func parse(_ text: String) throws(VarlinkFault) -> VarlinkCall { try VarlinkCall(parsing: Array(text.utf8)) }
        let call = try parse(#"{"method":"org.example.ftl.Jump","parameters":{"speed":9},"more":true,"oneway":null}"#)
        #expect(call.interface == "org.example.ftl")
        #expect(call.method == "Jump")
        #expect(call.parameters["speed"] == 9)
        #expect(call.wantsMore && !call.isOneWay && !call.upgrades)
        #expect(try parse(#"{"method":"org.example.Stop","oneway":true}"#).isOneWay)
        #expect(call.message == Array(#"{"method":"org.example.ftl.Jump","parameters":{"speed":9},"more":true}"#.utf8) + [0])
        for text in [
            #"[]"#, #"{}"#, #"{"method":1}"#, #"{"method":"Jump"}"#, #"{"method":"a.B","parameters":[]}"#, #"{"method":"a.B","more":1}"#,
            #"{"method":"a.B","mode":1}"#, #"{"method":"a.B","more":true,"oneway":true}"#,
        ] {
            #expect { try parse(text) } throws: { if case .notCall? = $0 as? VarlinkFault { true } else { false } }
        }
        for text in ["", "{", #"{"method":"a.B","method":"a.C"}"#, "\u{feff}{}", String(repeating: "[", count: 40)] {
            #expect { try parse(text) } throws: { if case .notJSON? = $0 as? VarlinkFault { true } else { false } }
        }
    }

    @Test func replies() throws {
        #expect(VarlinkReply([("a", 1)].object, continues: true).message == Array(#"{"parameters":{"a":1},"continues":true}"#.utf8) + [0])
        #expect(
            VarlinkServiceError.methodNotFound("a.B").reply.message
                == Array(#"{"error":"org.varlink.service.MethodNotFound","parameters":{"method":"a.B"}}"#.utf8) + [0])
        let reply = try VarlinkReply(parsing: Array(#"{"error":"a.E","parameters":{"x":[]}}"#.utf8))
        #expect(reply == VarlinkReply(error: "a.E", [("x", [])].object))
    }

    @Test func parameters() throws {
        let object = [
            ("text", "a"), ("flag", true), ("number", 7), ("none", nil), ("list", ["a", "b"]),
            ("inner", ["x": 1]), ("rows", [["x": 1], ["x": 2]]),
        ].object
        var reader = ParameterReader(object)
        #expect(try reader.string("text") == "a")
        #expect(try reader.bool("flag"))
        #expect(try reader.number("number") == 7)
        #expect(try reader.optionalString("none") == nil)
        #expect(try reader.strings("list") == ["a", "b"])
        #expect(try reader.strings("missing") == [])
        var inner = try reader.object("inner")
        #expect(try inner.number("x") == 1)
        try inner.finish()
        let rows = try reader.objects("rows")
        #expect(rows.count == 2)
        try reader.finish()
        #expect(throws: VarlinkServiceError.invalidParameter("rows.x")) { try rows[0].finish() }

        var other = ParameterReader(object)
        #expect(throws: VarlinkServiceError.invalidParameter("number")) { try other.string("number") }
        #expect(throws: VarlinkServiceError.invalidParameter("missing")) { try other.number("missing") }
        #expect(throws: VarlinkServiceError.invalidParameter("inner")) { try other.strings("inner") }
        #expect(throws: VarlinkServiceError.invalidParameter("text")) { try ParameterReader(object).finish() }
        var negative = ParameterReader([("number", -1)].object)
        #expect(throws: VarlinkServiceError.invalidParameter("number")) { try negative.number("number") }
    }

    @Test func descriptions() {
        let service = VarlinkInterface.service
        #expect(service.name == "org.varlink.service")
        #expect(service.methods == ["GetInfo", "GetInterfaceDescription"])
        #expect(service.errors.count == 6)
    }

    @Test func addresses() throws {
        #expect(try VarlinkAddress(parsing: "unix:/run/x").path == "/run/x")
        #expect(try VarlinkAddress(parsing: "/run/x").mode == 0o600)
        let wide = try VarlinkAddress(parsing: "unix:/run/x;mode=0660")
        #expect(wide.path == "/run/x" && wide.mode == 0o660)
        for text: ByteString in [
            "unix:@x", "unix:x", "x", "", "unix:", "unix:/run/", "tcp:127.0.0.1:1", "/x;mode=0999", "/x;mode=07777", "/x;y",
        ] {
            #expect(throws: VarlinkAddress.Fault.self) { try VarlinkAddress(parsing: text) }
        }
    }
}

extension [(String, JSONValue)] {
    fileprivate var object: JSONObject { JSONObject(map { (key: $0.0, value: $0.1) }) }
}

/// The stream of a layer, in the form that composefs-rs's crate `composefs-splitdirfdstream` documents.
@Suite struct DirectoryStreamTests {
    /// The chunks, with the bytes of those that have some.
    private func read(_ bytes: [UInt8], piece: Int) throws(DirectoryStreamReader.Fault) -> [(DirectoryStreamChunk, [UInt8])] {
        var reader = DirectoryStreamReader()
        var found: [(DirectoryStreamChunk, [UInt8])] = []
        var buffer = [UInt8](repeating: 0, count: 3)
        for start in stride(from: 0, to: bytes.count, by: piece) {
            bytes[start..<min(start + piece, bytes.count)].withUnsafeBytes { reader.append($0) }
            while true {
                let taken = buffer.withUnsafeMutableBytes { reader.takeBytes(into: $0) }
                if taken > 0 {
                    found[found.count - 1].1 += buffer[..<taken]
                    continue
                }
                guard reader.pending == 0, let chunk = try reader.next() else { break }
                found.append((chunk, []))
            }
        }
        try reader.finish()
        return found
    }

    // Written out by hand from the table of the format.
    private static let sample: [UInt8] =
        [0, 4, 0, 0, 0] + Array("head".utf8) + [1, 0, 0, 0, 0] + [2, 5, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 9, 0, 0, 0]
        + Array("data/blob".utf8) + [1, 2, 0, 0, 0, 0x61, 0x62]

    @Test func chunks() throws {
        for piece in [1, 2, 7, 1000] {
            let found = try read(Self.sample, piece: piece)
            #expect(
                found.map(\.0) == [.bytes(count: 4), .bytes(count: 0), .file(directory: 1, path: "data/blob", size: 5), .bytes(count: 2)])
            #expect(found.map(\.1) == [Array("head".utf8), [], [], Array("ab".utf8)])
        }
    }

    @Test func writing() {
        #expect(DirectoryStreamChunk.head(ofBytes: 4) + Array("head".utf8) == Array(Self.sample[..<9]))
        #expect(DirectoryStreamChunk.file(directory: 1, path: "data/blob", size: 5) == Array(Self.sample[14..<40]))
    }

    @Test func faults() {
        func fault(_ bytes: [UInt8]) -> DirectoryStreamReader.Fault? {
            do throws(DirectoryStreamReader.Fault) {
                _ = try read(bytes, piece: 1000)
                return nil
            } catch { return error }
        }
        func file(_ path: String, length: UInt32? = nil) -> [UInt8] {
            let count = length ?? UInt32(path.utf8.count)
            return [2, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0] + withUnsafeBytes(of: count.littleEndian) { Array($0) } + Array(path.utf8)
        }
        func isOfPath(_ fault: DirectoryStreamReader.Fault?) -> Bool { if case .path? = fault?.reason { true } else { false } }
        #expect(fault(Self.sample + [3]) == .init(offset: UInt64(Self.sample.count), reason: .unknownType(3)))
        #expect(fault([0, 1, 0, 0, 0x10]) == .init(offset: 0, reason: .tooLong(0x1000_0001)))
        #expect(fault([0, 0, 0, 0, 0x10])?.reason == .truncated)
        #expect(fault([0, 2, 0, 0, 0, 1])?.reason == .truncated)
        #expect(fault(Array(file("abc").dropLast()))?.reason == .truncated)
        #expect(fault(file("abc")) == nil)
        #expect(fault(file("..abc/...")) == nil)
        for path in ["/etc/passwd", "../x", "a/../../x", "a/..", "a\0b"] {
            #expect(isOfPath(fault(file(path))), "\(path)")
        }
        #expect(isOfPath(fault(file("", length: 0))))
        #expect(isOfPath(fault(file("", length: 5000))))
    }
}
