#pragma once
/* As many registers as arch/ says; it also says which of them is where. */
struct pt_regs {
    unsigned long words[REGISTERS];
};
