internal import ComposefsBytes

/// Builds the tables of a document.
struct TOMLDocument {
    /// A table that is being built, and what may still add to it.
    private final class Table {
        enum Origin {
            /// Created by a header of a table inside it: `[a]` after `[a.b]` may define it once.
            case implied
            /// `[a]`, `[[a]]`, the root: complete at the next header, except for tables inside it.
            case header
            /// `a.b = 1`: only other dotted keys under the same header add to it.
            case dotted
            /// `{…}`: complete.
            case inline
        }

        var origin: Origin
        let line: Int
        let depth: Int
        var members: [String: Node] = [:]

        init(_ origin: Origin, line: Int, depth: Int) {
            self.origin = origin
            self.line = line
            self.depth = depth
        }
    }

    private enum Node {
        case value(TOMLValue)
        case table(Table)
        /// `[[a]]`
        case tables(List)
    }

    private final class List {
        let line: Int
        var elements: [Table] = []

        init(line: Int) { self.line = line }
    }

    private var scanner: TOMLScanner
    private let root = Table(.header, line: 1, depth: 0)

    init(_ scanner: TOMLScanner) { self.scanner = scanner }

    mutating func parse() throws(TOMLError) -> TOMLValue {
        var current = root
        while true {
            scanner.skipBlanks()
            guard let byte = scanner.peek else { return Self.value(of: root) }
            switch byte {
            case UInt8(ascii: "#"), 0x0a, 0x0d: break
            case UInt8(ascii: "["): current = try header()
            default:
                let line = scanner.line
                let path = try keyPath()
                try scanner.expect("=", after: "a key")
                scanner.skipBlanks()
                let value = try self.value(depth: current.depth + path.count)
                try insert(value, path, into: current, line)
            }
            try scanner.endLine()
        }
    }

    private func problem(_ reason: String, _ line: Int? = nil) -> TOMLError { TOMLError(line: line ?? scanner.line, reason: reason) }

    private func shown(_ path: some Collection<String>) -> String { printable(path.joined(separator: ".")) }

    // MARK: Headers and keys

    /// `[a.b]` or `[[a.b]]`
    private mutating func header() throws(TOMLError) -> Table {
        let line = scanner.line
        scanner.advance()
        let isArray = scanner.skip(UInt8(ascii: "["))
        let path = try keyPath()
        try scanner.expect("]", after: "a table's name")
        if isArray { guard scanner.skip(UInt8(ascii: "]")) else { throw problem("]] is missing") } }
        var table = root
        for (index, key) in path.dropLast().enumerated() {
            switch table.members[key] {
            case nil: table = try add(.implied, key, to: table, line)
            case .table(let next) where next.origin != .inline: table = next
            case .tables(let list):
                guard let last = list.elements.last else { throw problem("\(shown(path[...index])) is empty") }
                table = last
            default: throw problem("\(shown(path[...index])) cannot be extended", line)
            }
        }
        guard let name = path.last else { throw problem("the table has no name", line) }
        if isArray {
            let made = Table(.header, line: line, depth: try deeper(table, by: 2, line))
            let list: List
            switch table.members[name] {
            case nil:
                list = List(line: line)
                table.members[name] = .tables(list)
            case .tables(let existing): list = existing
            default: throw problem("\(shown(path)) is defined as something else", line)
            }
            list.elements.append(made)
            return made
        }
        switch table.members[name] {
        case nil: return try add(.header, name, to: table, line)
        case .table(let existing) where existing.origin == .implied:
            existing.origin = .header
            return existing
        default: throw problem("\(shown(path)) is defined twice", line)
        }
    }

    private func add(_ origin: Table.Origin, _ key: String, to table: Table, _ line: Int) throws(TOMLError) -> Table {
        let made = Table(origin, line: line, depth: try deeper(table, by: 1, line))
        table.members[key] = .table(made)
        return made
    }

    private func deeper(_ table: Table, by levels: Int, _ line: Int) throws(TOMLError) -> Int {
        guard table.depth + levels <= TOML.depthLimit else { throw problem("tables are nested more than \(TOML.depthLimit) deep", line) }
        return table.depth + levels
    }

    private func insert(_ value: TOMLValue, _ path: [String], into start: Table, _ line: Int) throws(TOMLError) {
        var table = start
        for (index, key) in path.dropLast().enumerated() {
            switch table.members[key] {
            case nil: table = try add(.dotted, key, to: table, line)
            case .table(let next) where next.origin == .dotted: table = next
            default: throw problem("\(shown(path[...index])) cannot be extended here", line)
            }
        }
        guard let name = path.last, table.members[name] == nil else { throw problem("\(shown(path)) is defined twice", line) }
        table.members[name] = .value(value)
    }

    /// `a . "b" . 'c'`
    private mutating func keyPath() throws(TOMLError) -> [String] {
        var path: [String] = []
        repeat {
            scanner.skipBlanks()
            guard path.count < TOML.depthLimit else { throw problem("a key of more than \(TOML.depthLimit) parts") }
            path.append(try scanner.key())
            scanner.skipBlanks()
        } while scanner.skip(UInt8(ascii: "."))
        return path
    }

    // MARK: Values

    /// - Parameter depth: of the enclosing value.
    private mutating func value(depth: Int) throws(TOMLError) -> TOMLValue {
        guard depth <= TOML.depthLimit else { throw problem("values are nested more than \(TOML.depthLimit) deep") }
        let line = scanner.line
        switch scanner.peek {
        case UInt8(ascii: "["): return TOMLValue(content: .array(try array(depth: depth)), line: line)
        case UInt8(ascii: "{"): return try inlineTable(depth: depth)
        case UInt8(ascii: "\""), UInt8(ascii: "'"): return TOMLValue(content: .string(try scanner.string()), line: line)
        default: return TOMLValue(content: try scanner.scalar(), line: line)
        }
    }

    private mutating func array(depth: Int) throws(TOMLError) -> [TOMLValue] {
        scanner.advance()
        var elements: [TOMLValue] = []
        while true {
            try scanner.skipBlankLines()
            if scanner.skip(UInt8(ascii: "]")) { return elements }
            elements.append(try value(depth: depth + 1))
            try scanner.skipBlankLines()
            guard scanner.skip(UInt8(ascii: ",")) else {
                try scanner.expect("]", after: "a list's value")
                return elements
            }
        }
    }

    private mutating func inlineTable(depth: Int) throws(TOMLError) -> TOMLValue {
        let table = Table(.inline, line: scanner.line, depth: depth)
        scanner.advance()
        scanner.skipBlanks()
        if scanner.skip(UInt8(ascii: "}")) { return Self.value(of: table) }
        repeat {
            let line = scanner.line
            let path = try keyPath()
            try scanner.expect("=", after: "a key")
            scanner.skipBlanks()
            try insert(try value(depth: depth + path.count), path, into: table, line)
            scanner.skipBlanks()
        } while scanner.skip(UInt8(ascii: ","))
        try scanner.expect("}", after: "an inline table's value")
        return Self.value(of: table)
    }

    private static func value(of table: Table) -> TOMLValue {
        let members = table.members.mapValues { node in
            switch node {
            case .value(let value): value
            case .table(let table): value(of: table)
            case .tables(let list): TOMLValue(content: .array(list.elements.map { value(of: $0) }), line: list.line)
            }
        }
        return TOMLValue(content: .table(members), line: table.line)
    }
}
