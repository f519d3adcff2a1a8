/// An interface's description in varlink's own language.
public struct VarlinkInterface: Hashable, Sendable {
    public let name: String
    public let description: String
    /// The names of the methods, in the order of the description.
    public let methods: [String]
    /// The names of the errors, in the order of the description.
    public let errors: [String]

    /// - Parameter description: begins with comments and `interface NAME`; each method and error begins a line.
    public init(_ description: String) {
        self.description = description
        let lines = description.split(separator: "\n").map { $0.split(separator: " ", maxSplits: 1) }
        func names(_ keyword: Substring) -> [String] {
            lines.filter { $0.count == 2 && $0[0] == keyword }.map { String($0[1].prefix { $0 != "(" && $0 != " " }) }
        }
        let found = names("interface")
        precondition(found.count == 1, "a description has one interface")
        name = found[0]
        methods = names("method")
        errors = names("error")
    }

    /// What every service has.
    public static let service = VarlinkInterface(
        """
        # What every varlink service offers: what it is, and its interfaces.
        interface org.varlink.service

        # What the service is, and the names of its interfaces.
        method GetInfo() -> (
          vendor: string,
          product: string,
          version: string,
          url: string,
          interfaces: []string
        )

        # The description of an interface.
        method GetInterfaceDescription(interface: string) -> (description: string)

        error InterfaceNotFound (interface: string)
        error MethodNotFound (method: string)
        error MethodNotImplemented (method: string)
        error InvalidParameter (parameter: string)
        error PermissionDenied ()
        error ExpectedMore ()

        """)
}
