"""Native functions that tell nothing between two others: how the interpreter calls, not what it calls.

`sorted` that calls a key function is worth a frame; the five functions through which the interpreter gets there are
not, and their names change with each version. They are shown only where the sample is in one of them. So it is with
functions of the interpreter whose names its file does not tell.
"""

from __future__ import annotations

import re

_CALLS = """
    call_function do_call_core function_code_fastcall object_vacall PyObject_Call PyObject_CallFunction
    PyObject_CallFunctionObjArgs PyObject_CallMethod PyObject_CallMethodObjArgs PyObject_CallNoArgs PyObject_CallObject
    PyObject_CallOneArg PyObject_Vectorcall PyObject_VectorcallDict PyObject_VectorcallMethod PyVectorcall_Call
    _PyObject_Call _PyObject_CallFunctionVa _PyObject_CallFunction_SizeT _PyObject_CallMethod _PyObject_CallMethodFormat
    _PyObject_CallMethodId _PyObject_CallMethodIdObjArgs _PyObject_CallMethodId_SizeT _PyObject_CallMethod_SizeT
    _PyObject_CallNoArg _PyObject_CallNoArgs _PyObject_CallNoArgsTstate _PyObject_Call_Prepend _PyObject_FastCall
    PyIter_Next PyObject_CallFinalizerFromDealloc _PyObject_FastCall_Prepend
    _PyObject_FastCallDict _PyObject_FastCallDictTstate _PyObject_FastCallTstate _PyObject_MakeTpCall
    _PyObject_Vectorcall _PyObject_VectorcallDictTstate _PyObject_VectorcallTstate _PyVectorcall_Call callmethod
    call_maybe call_method vectorcall_maybe vectorcall_method vectorcall_unbound
    _Py_VectorCall_StackRefSteal _Py_BuiltinCallFast_StackRef _Py_BuiltinCallFastWithKeywords_StackRef
    _PyCallMethodDescriptorFast_StackRef _PyCallMethodDescriptorFastWithKeywords_StackRef
    _Py_VectorCallInstrumentation_StackRefSteal _Py_CallBuiltinClass_StackRef
"""
_FUNCTIONS = """
    PyEval_EvalCode PyEval_EvalCodeEx PyEval_EvalFrame PyEval_EvalFrameEx _PyEval_EvalCode _PyEval_EvalCodeWithName
    _PyEval_EvalFrame _PyEval_EvalFrameDefault _PyEval_Vector _PyFunction_FastCall _PyFunction_FastCallDict
    _PyFunction_FastCallKeywords _PyFunction_Vectorcall method_vectorcall method_call
    gen_iternext gen_send_ex gen_send_ex2 PyGen_am_send PyIter_Send PyRun_StringFlags run_eval_code_obj run_mod
"""
_BUILT_IN = """
    PyCFunction_Call _PyCFunction_FastCallDict _PyCFunction_FastCallKeywords _PyMethodDef_RawFastCallDict
    _PyMethodDef_RawFastCallKeywords _PyMethodDescr_FastCallKeywords _PyMethodDescr_Vectorcall cfunction_call
    cfunction_call_varargs cfunction_vectorcall_FASTCALL cfunction_vectorcall_FASTCALL_KEYWORDS
    cfunction_vectorcall_FASTCALL_KEYWORDS_METHOD cfunction_vectorcall_NOARGS cfunction_vectorcall_O
    method_vectorcall_FASTCALL method_vectorcall_FASTCALL_KEYWORDS method_vectorcall_FASTCALL_KEYWORDS_METHOD
    method_vectorcall_NOARGS method_vectorcall_O method_vectorcall_VARARGS method_vectorcall_VARARGS_KEYWORDS
"""
PLUMBING = frozenset(f"{_CALLS} {_FUNCTIONS} {_BUILT_IN}".split())
"""How the interpreter calls: anything, functions written in Python, functions written in C."""

_BEGINNINGS = frozenset(
    [
        "_start",
        "__libc_start_main",
        "__libc_start_main_impl",
        "__libc_start_call_main",
        "start_thread",
        "__clone",
        "__clone3",
        "clone",
        "clone3",
    ]
)
_C_LIBRARY = re.compile(r"(libc|ld-musl-\w+|libpthread)[-.][^/]*$")
_PYTHON = re.compile(r"python[\d.]*$")


def is_beginning(name: str, path: str) -> bool:
    """Is this how each program, or each thread, begins? `name` is empty if its file does not tell it."""
    file = path.rpartition("/")[2]
    if not name:
        return bool(_C_LIBRARY.match(file) or _PYTHON.match(file))
    return name in _BEGINNINGS or (name == "main" and bool(_PYTHON.match(file)))
