# cython: language_level=3
# What chains.py calls of Cython: a class, a C function between its method and the callback.

cdef class Caller:
    cdef object function

    def __init__(self, function):
        self.function = function

    cdef call(self, double until):
        return self.function(until)

    def visit(self, until):
        return self.call(until)


def through(function, until):
    return Caller(function).visit(until)
