import ComposefsBytes
import ComposefsLinuxSystem
import Testing

/// Compares the table of limits in Repo-Format.md with the constants in the source.
@Suite struct LimitTableTests {
    private struct Row {
        var file: String
        var constant: String
        var value: String
    }

    private static let top = ByteString(#filePath.split(separator: "/").dropLast(3).map { "/" + $0 }.joined())

    private static func text(_ path: ByteString) throws -> String {
        String(decoding: try FileDescriptor.open(path, .readOnly).readAll(limit: 1 << 22), as: UTF8.self)
    }

    /// The rows below the heading.
    private func rows() throws -> [Row] {
        let document = try Self.text(Self.top + "/Repo-Format.md")
        let chapter = try #require(document.components(after: "## 16. Limits\n"))
        return chapter.split(separator: "\n").filter { $0.hasPrefix("| `") }.compactMap { line in
            let cells = line.split(separator: "|").map { String($0).trimmed }
            let names = cells[0].filter { $0 != "`" }.split(separator: " ")
            return names.count == 2 ? Row(file: String(names[0]), constant: String(names[1]), value: cells[1]) : nil
        }
    }

    /// All Swift files of the package, by their names.
    private func sources() throws -> [String: [String]] {
        var found: [String: [String]] = [:]
        var pending = [Self.top + "/Sources"]
        while let path = pending.popLast() {
            for entry in try FileDescriptor.open(path, [.readOnly, .directory]).entries() {
                if entry.kind == .directory { pending.append(path + "/" + entry.name) }
                if entry.name.hasSuffix(".swift") {
                    found[entry.name.description, default: []].append(try Self.text(path + "/" + entry.name))
                }
            }
        }
        return found
    }

    /// The values of declarations `let NAME = VALUE`, `var NAME: TYPE = VALUE` and of default arguments `NAME: TYPE = VALUE`.
    private func values(of name: String, in source: String) -> [String] {
        source.split(separator: "\n").flatMap { line -> [String] in
            let line = String(line)
            guard !line.trimmed.hasPrefix("//") else { return [] }
            return line.pieces(after: name).compactMap { rest in
                guard let sign = rest.first(where: { $0 != " " }), sign == "=" || sign == ":", let equals = rest.firstIndex(of: "=") else {
                    return nil
                }
                // Between name and value there is at most a type.
                guard rest[..<equals].allSatisfy({ $0.isLetter || $0.isNumber || $0 == ":" || $0 == " " }) else { return nil }
                let value = rest[rest.index(after: equals)...].prefix { $0 != "," && $0 != "{" }
                return String(value).trimmed
            }
        }
    }

    /// The number of an expression: a literal, `A << B`, or the seconds of a duration.
    private func number(_ text: String) -> UInt64? {
        var text = text.filter { $0 != "_" }
        if let seconds = text.components(after: ".seconds(") { text = String(seconds.prefix { $0 != ")" }) }
        if text.hasSuffix(")") { text.removeLast() }
        let sides = text.split(separator: "<").map { String($0).trimmed }
        if sides.count == 2, let value = UInt64(sides[0]), let shift = UInt64(sides[1]), shift < 63 { return value << shift }
        return UInt64(text.trimmed)
    }

    @Test func tableAgreesWithTheSource() throws {
        let (rows, sources) = (try rows(), try sources())
        #expect(rows.count > 60)
        for row in rows {
            let expected = try #require(number(row.value), "\(row.constant): \(row.value)")
            let found = (sources[row.file] ?? []).flatMap { values(of: row.constant, in: $0) }.compactMap(number)
            #expect(found.contains(expected), "\(row.file): \(row.constant) is \(found), the table says \(row.value)")
        }
        #expect(Set(rows.map { $0.file + $0.constant }).count == rows.count)
    }

    /// Every constant that is called a limit is in the table, unless it bounds nothing that comes from outside.
    @Test func noLimitIsMissing() throws {
        let others: Set = [
            // Buffers and caches.
            "HTTPResponse.swift smallBodyLimit", "HTTPResponse.swift sharedBodyLimit", "Network.swift idleLimit",
            "DirectoryImport.swift wholeFileLimit", "LayerSplitter.swift waitingLimit", "MergeBudget.swift byteLimit",
            "DiskOutput.swift openLimit", "DiskOutput.swift limit", "ObjectProofs.swift limit",
            "BlockHashes.swift sizeLimit", "BlockHashes.swift limit",
            // Offsets and sizes of a format's fields.
            "Ext4Layouts.swift limit", "Ext4Layouts.swift rootLimit", "Ext4Layouts.swift nodeLimit",
            // Endpoints that are tried again.
            "RetryBudget.swift alternativeLimit", "RetryPolicy.swift unreachableLimit",
        ]
        let known = Set(try rows().map { $0.file + " " + $0.constant })
        var missing: [String] = []
        for (file, texts) in try sources() {
            for line in texts.joined(separator: "\n").split(separator: "\n") {
                let words = line.split(separator: " ").map(String.init)
                guard let place = words.firstIndex(where: { $0 == "let" || $0 == "var" }),
                    words.contains("static") || words.first == "public",
                    place + 1 < words.count
                else { continue }
                let name = String(words[place + 1].prefix { $0 != ":" })
                guard name.hasSuffix("Limit") || name == "limit", let value = values(of: name, in: String(line)).first, number(value) != nil
                else { continue }
                if !known.contains(file + " " + name), !others.contains(file + " " + name) { missing.append(file + " " + name) }
            }
        }
        #expect(missing.isEmpty, "\(missing.sorted())")
    }
}

extension String {
    fileprivate var trimmed: String {
        var text = self[...]
        while text.first == " " { text.removeFirst() }
        while text.last == " " { text.removeLast() }
        return String(text)
    }

    /// What follows the first occurrence of `part`.
    fileprivate func components(after part: String) -> String? {
        var rest = self[...]
        while !rest.isEmpty {
            if rest.hasPrefix(part) { return String(rest.dropFirst(part.count)) }
            rest = rest.dropFirst()
        }
        return nil
    }

    /// What follows each occurrence of a word.
    fileprivate func pieces(after word: String) -> [Substring] {
        var found: [Substring] = []
        var rest = self[...]
        var isStart = true
        while !rest.isEmpty {
            if isStart, rest.hasPrefix(word) {
                let after = rest.dropFirst(word.count)
                if let next = after.first, !next.isLetter, !next.isNumber { found.append(after) }
            }
            isStart = !(rest.first?.isLetter ?? false) && !(rest.first?.isNumber ?? false)
            rest = rest.dropFirst()
        }
        return found
    }
}
