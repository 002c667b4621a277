// What chains.py calls of C++: templates, an inlined function between two that are not, a virtual function, an exception's frame.
#include <stdexcept>

typedef void (*callback)(double);

namespace chains {

struct Visitor {
    virtual void visit(callback function, double until) = 0;
    virtual ~Visitor() = default;
};

static inline void inlined(Visitor &visitor, callback function, double until)
{
    visitor.visit(function, until);
}

template <int DEPTH> struct Level : Visitor {
    __attribute__((noinline)) void visit(callback function, double until) override
    {
        volatile double kept = until;
        Level<DEPTH - 1> below;
        try {
            inlined(below, function, kept);
        } catch (const std::exception &) {
            kept = 0;
        }
    }
};

template <> struct Level<0> : Visitor {
    __attribute__((noinline)) void visit(callback function, double until) override
    {
        volatile double kept = until;
        function(kept);
        kept = 0;
    }
};

}  // namespace chains

extern "C" void through_classes(callback function, double until)
{
    chains::Level<3> level;
    chains::Visitor *volatile visitor = &level;
    visitor->visit(function, until);
}
