public import ComposefsBytes

/// The arguments of a kernel, as in `/proc/cmdline`.
///
/// Arguments are separated by ASCII white space. Between double quotes, white space is part of the argument. Quotes stay in the argument, as
/// the kernel's `parse_args` hands them to user space (kernel-parameters.rst).
public struct KernelCommandLine: Sendable, Equatable {
    public var arguments: [ByteString]

    public init(_ arguments: [ByteString]) { self.arguments = arguments }

    /// Splits `text`. A NUL ends it: the command line of a unified kernel image may be padded. An open quote extends to the end.
    public init(parsing text: some Sequence<UInt8>) {
        arguments = []
        var argument: [UInt8] = []
        var isQuoted = false
        for byte in text {
            if byte == 0 { break }
            if byte == UInt8(ascii: "\"") { isQuoted.toggle() }
            if isQuoted || !isASCIISpace(byte) {
                argument.append(byte)
            } else if !argument.isEmpty {
                arguments.append(ByteString(argument))
                argument = []
            }
        }
        if !argument.isEmpty { arguments.append(ByteString(argument)) }
    }

    /// The arguments, separated by spaces. An open quote is closed if another argument follows: it would be part of the quoted text. The kernel takes
    /// both for the same argument.
    public var bytes: [UInt8] {
        let (space, quote) = (UInt8(ascii: " "), UInt8(ascii: "\""))
        var text: [UInt8] = []
        var isOpen = false
        for (index, argument) in arguments.enumerated() {
            if index > 0 { text += isOpen ? [quote, space] : [space] }
            text += argument.bytes
            isOpen = !argument.bytes.count { $0 == quote }.isMultiple(of: 2)
        }
        return text
    }

    /// Replaces the first argument with the same key as `argument`, up to and including `=`, or appends `argument` if there is none.
    ///
    /// An argument without `=` replaces only its equal.
    public mutating func set(_ argument: ByteString) {
        let key = argument.bytes.firstIndex(of: UInt8(ascii: "=")).map { argument.bytes[...$0] }
        let existing = arguments.firstIndex { other in key.map { other.bytes.starts(with: $0) } ?? (other == argument) }
        if let existing { arguments[existing] = argument } else { arguments.append(argument) }
    }
}
