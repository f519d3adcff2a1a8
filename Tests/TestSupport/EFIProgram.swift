/// A PE file, built from the figures of the specification.
package struct EFIProgram {
    package var machine: UInt16 = 0x8664
    package var optionalHeader = [UInt8](repeating: 0xee, count: 112)
    package var sections: [(name: String, memorySize: Int, data: [UInt8])] = []
    package var signatureOffset = 0x80

    package init() {}

    /// Sections with these texts.
    package init(_ texts: [(name: String, text: String)]) { for (name, text) in texts { add(name, text) } }

    private static func little(_ value: Int, _ size: Int) -> [UInt8] { (0..<size).map { UInt8(truncatingIfNeeded: value >> (8 * $0)) } }

    package var bytes: [UInt8] {
        var file: [UInt8] = Array("MZ".utf8) + [UInt8](repeating: 0, count: 0x3a) + Self.little(signatureOffset, 4)
        file += [UInt8](repeating: 0x55, count: signatureOffset - file.count)
        file += [0x50, 0x45, 0, 0] + Self.little(Int(machine), 2) + Self.little(sections.count, 2) + [UInt8](repeating: 0, count: 12)
        file += Self.little(optionalHeader.count, 2) + Self.little(0x22, 2) + optionalHeader
        var offset = (file.count + 40 * sections.count + 511) / 512 * 512
        var contents: [UInt8] = []
        for section in sections {
            let stored = (section.data.count + 511) / 512 * 512
            file += Array(section.name.utf8.prefix(8)) + [UInt8](repeating: 0, count: max(0, 8 - section.name.utf8.count))
            file += Self.little(section.memorySize, 4) + Self.little(0x10000, 4) + Self.little(stored, 4) + Self.little(offset, 4)
            file += [UInt8](repeating: 0, count: 16)
            contents += section.data + [UInt8](repeating: 0xaa, count: stored - section.data.count)
            offset += stored
        }
        file += [UInt8](repeating: 0, count: (file.count + 511) / 512 * 512 - file.count)
        return file + contents
    }

    package mutating func add(_ name: String, _ text: String) { sections.append((name, text.utf8.count, Array(text.utf8))) }
}
